#include "coordinator/training_health.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "common/error.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr std::size_t kEarlyReports = 5;  // an odd number: the median is one of them
// Squared distances of samples from their pairs' images in units of the samples' variance: unrelated images are 2 apart.
constexpr double kShareOfVariance = 0.15;
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

constexpr const char* kRegression = "regression";
constexpr const char* kFakeScore = "fake score";
constexpr const char* kDistill = "distill";

struct AlarmText {
  const char* code;
  const char* hint;
};

constexpr AlarmText kTexts[] = {
    {"non_finite", "The attempt ends and starts again from its last checkpoint. When it comes back, lower the learning rates or set "
                   "clip_norm."},
    {"fake_loss", "The generator runs away from its fake score: lower dmd.generator.learning_rate, set its beta1 to 0, raise "
                  "dmd.fake.learning_rate."},
    {"fake_loss_fall", "Samples have become easy to denoise, so alike or blurred: look at them; the same causes as fake_loss."},
    {"regression_loss", "The generator forgets its pairs: a frozen or lagging fake score, or too large a generator learning rate; raise "
                        "dmd.lambda_reg."},
    {"mean_shift", "Samples drift in brightness: the same causes as fake_loss; look at the samples."},
    {"spread_loss", "Samples become alike: look at them, and at the evaluations' class accuracy and spread."},
    {"zero_gradient", "Fake and real score agree exactly: the fake score is not trained. Is dmd.fake.learning_rate 0?"},
    {"zero_denominators", "The real score returns the samples themselves: is sigma_lo too small, or are the samples constant?"},
    {"gradient_norm", "An update explodes: lower the learning rate, or set clip_norm."},
    {"frechet", "Two evaluations in a row are far worse than the best one, which is pinned: export or resume from that."},
    {"class_accuracy", "Two evaluations in a row see other classes than those asked for: look at the samples."},
};

std::string hint_of(const std::string& code) {
  for (const AlarmText& text : kTexts) {
    if (text.code == code) return text.hint;
  }
  return "";
}

std::string figure(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

double value_of(const HealthReport& report, const char* key) {
  const auto found = report.values.find(key);
  return found == report.values.end() ? kNone : found->second;
}

double median(std::vector<double> values) {
  if (values.empty()) return kNone;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string with_commas(std::int64_t number) {
  std::string text = std::to_string(number);
  for (auto at = static_cast<std::ptrdiff_t>(text.size()) - 3; at > 0; at -= 3) text.insert(static_cast<std::size_t>(at), ",");
  return text;
}

}  // namespace

const std::vector<std::string>& training_alarm_codes() {
  static const std::vector<std::string> codes = [] {
    std::vector<std::string> list;
    for (const AlarmText& text : kTexts) list.emplace_back(text.code);
    return list;
  }();
  return codes;
}

TrainingHealth::TrainingHealth(const JobSpec& spec) : bounds_(spec.health) {
  if (const auto* distill = std::get_if<DistillSpec>(&spec.options)) {
    batch_ = static_cast<double>(distill->dmd.batch);
    matches_distributions_ = distill->dmd.lambda_dm > 0;
    is_l2_ = distill->distance == "l2";
  }
}

TrainingHealth::TrainingHealth(const JobSpec& spec, const json& state) : TrainingHealth(spec) {
  try {
    last_iteration_ = state.at("last_iteration");
    last_evaluation_ = state.at("last_evaluation");
    early_ = state.at("early").get<decltype(early_)>();
    best_ = state.at("best").get<decltype(best_)>();
    for (const auto& [code, watch] : state.at("watches").items()) {
      watches_[code] = {watch.at("since_iteration"), watch.at("since_images"), watch.at("reports"), watch.at("holds")};
    }
  } catch (const json::exception& error) {
    throw Error(ErrorCode::kCorrupt, std::string("state of the training's health: ") + error.what());
  }
}

json TrainingHealth::to_json() const {
  json watches = json::object();
  for (const auto& [code, watch] : watches_) {
    watches[code] = {{"since_iteration", watch.since_iteration},
                     {"since_images", watch.since_images},
                     {"reports", watch.reports},
                     {"holds", watch.holds}};
  }
  return {{"last_iteration", last_iteration_},
          {"last_evaluation", last_evaluation_},
          {"early", early_},
          {"best", best_},
          {"watches", watches}};
}

void TrainingHealth::resume() {
  watches_.clear();
  last_iteration_ = -1;
}

double TrainingHealth::early(const std::string& key) const {
  const auto found = early_.find(key);
  return found == early_.end() ? kNone : median(found->second);
}

std::vector<HealthFinding> TrainingHealth::observe(const HealthReport& report) {
  std::vector<HealthFinding> findings;
  std::string wrong;
  double value = 0;
  for (const auto& [key, found] : report.values) {
    if (std::isfinite(found)) continue;
    wrong += (wrong.empty() ? "" : ", ") + key;
    value = found;
  }
  // A restarted attempt repeats iterations: while the alarm holds it is not raised again.
  if (!wrong.empty() && !watches_["non_finite"].holds) {
    watches_["non_finite"].holds = true;
    findings.push_back({"non_finite", false, report.stage, report.iteration, report.images, report.iteration, report.images, value, 0,
                        wrong + " not finite at iteration " + std::to_string(report.iteration), hint_of("non_finite")});
  }
  if (!wrong.empty() || report.iteration <= last_iteration_) return findings;
  last_iteration_ = report.iteration;
  judge({"non_finite", false, 0, 0, "every figure is finite"}, report, findings);
  if (report.stage == kDistill) {
    for (const Bound& bound : distill_bounds(report)) judge(bound, report, findings);
  }
  remember(report);
  return findings;
}

// References: the last reports before the DMD phase; of the gradients, which that phase alone has together, its first ones. Without
// a phase of its own the fake score's loss is held against the first ones too.
void TrainingHealth::remember(const HealthReport& report) {
  const auto keep = [&](const char* key, bool newest) {
    const double value = value_of(report, key);
    if (std::isnan(value)) return;
    std::vector<double>& kept = early_[key];
    if (kept.size() == kEarlyReports) {
      if (!newest) return;
      kept.erase(kept.begin());
    }
    kept.push_back(value);
  };
  if (report.stage == kRegression) keep("loss_reg", true);
  if (report.stage == kFakeScore) keep("loss_fake", true);
  // Samples of a generator that never saw pairs are no reference: the teacher's one step is blurred.
  const bool saw_pairs = early_.contains("loss_reg");
  if (report.stage == kRegression || (report.stage == kFakeScore && saw_pairs)) {
    keep("sample_mean", true);
    keep("sample_spread", true);
  }
  if (report.stage != kDistill) return;
  keep("gradient_norm_generator", false);
  keep("gradient_norm_fake", false);
  if (const double loss = value_of(report, "loss_fake"); !early_.contains("loss_fake") && !std::isnan(loss)) {
    std::vector<double>& first = early_["first_loss_fake"];
    if (first.size() < kEarlyReports) first.push_back(loss);
  }
}

std::vector<TrainingHealth::Bound> TrainingHealth::distill_bounds(const HealthReport& report) const {
  std::vector<Bound> found;
  // Comparisons with NaN, a figure or a reference that is not there, are false: nothing is broken.
  const auto over = [&](const char* code, const char* key, const char* name, double reference, const char* since, double bound) {
    const double value = value_of(report, key), ratio = value / reference;
    const bool broken = bound > 0 && reference > 0 && ratio > bound;
    found.push_back({code, broken, ratio, bound,
                     std::string(name) + " " + figure(value) + " is " + figure(ratio) + " times the " + figure(reference) + " " + since +
                         " (bound: " + figure(bound) + " times)"});
  };
  const auto under = [&](double reference, const char* since, double bound) {
    const double value = value_of(report, "loss_fake"), ratio = value / reference;
    const bool broken = bound > 0 && reference > 0 && ratio < 1 / bound;
    found.push_back({"fake_loss_fall", broken, ratio, bound > 0 ? 1 / bound : 0,
                     "the fake score's loss " + figure(value) + " is only " + figure(ratio) + " times the " + figure(reference) + " " + since +
                         " (bound: " + figure(bound > 0 ? 1 / bound : 0) + " times)"});
  };
  if (early_.contains("loss_fake")) {
    under(early("loss_fake"), "before the distillation", bounds_.fake_loss);
    over("fake_loss", "loss_fake", "the fake score's loss", early("loss_fake"), "before the distillation", bounds_.fake_loss);
  } else if (const auto first = early_.find("first_loss_fake"); first != early_.end() && first->second.size() == kEarlyReports) {
    under(median(first->second), "at the beginning of the distillation", bounds_.fake_loss);
    over("fake_loss", "loss_fake", "the fake score's loss", median(first->second), "at the beginning of the distillation",
         bounds_.fake_loss);
  }
  // Few pairs are learned by heart in their own phase, and a healthy generator forgets that.
  const double spread = early("sample_spread");
  const bool is_far = !is_l2_ || value_of(report, "loss_reg") > kShareOfVariance * spread * spread;
  over("regression_loss", "loss_reg", "the regression loss", early("loss_reg"), "at the end of the regression",
       is_far ? bounds_.regression_loss : 0);

  const double shift = std::abs(value_of(report, "sample_mean") - early("sample_mean")) / spread;
  found.push_back({"mean_shift", bounds_.mean_shift > 0 && shift > bounds_.mean_shift, shift, bounds_.mean_shift,
                   "the samples' mean " + figure(value_of(report, "sample_mean")) + " is " + figure(shift) +
                       " of their early spread away from the early " + figure(early("sample_mean")) + " (bound: " +
                       figure(bounds_.mean_shift) + ")"});
  const double lost = 1 - value_of(report, "sample_spread") / spread;
  found.push_back({"spread_loss", bounds_.spread_loss > 0 && lost > bounds_.spread_loss, lost, bounds_.spread_loss,
                   "the samples' spread " + figure(value_of(report, "sample_spread")) + " has lost " + figure(100 * lost) +
                       " % of the early " + figure(spread) + " (bound: " + figure(100 * bounds_.spread_loss) + " %)"});

  const double gradient = value_of(report, "dm_gradient_abs");
  found.push_back({"zero_gradient", matches_distributions_ && gradient == 0, gradient, 0,
                   "the distribution matching gradient is exactly 0: the generator learns nothing from it", true});
  const double share = batch_ > 0 ? value_of(report, "zero_denominators") / batch_ : kNone;
  found.push_back({"zero_denominators", bounds_.zero_denominators > 0 && share > bounds_.zero_denominators, share,
                   bounds_.zero_denominators,
                   figure(100 * share) + " % of the samples have no distribution matching gradient (bound: " +
                       figure(100 * bounds_.zero_denominators) + " %)"});

  // One alarm for both networks: the worse of the two ratios.
  const double of_generator = value_of(report, "gradient_norm_generator") / early("gradient_norm_generator");
  const double of_fake = value_of(report, "gradient_norm_fake") / early("gradient_norm_fake");
  const char* worse = of_generator >= of_fake ? "gradient_norm_generator" : "gradient_norm_fake";
  over("gradient_norm", worse, of_generator >= of_fake ? "the generator's gradient norm" : "the fake score's gradient norm", early(worse),
       "at the beginning of the distillation", bounds_.gradient_norm);
  return found;
}

std::vector<HealthFinding> TrainingHealth::observe_evaluation(const HealthReport& evaluation) {
  std::vector<HealthFinding> findings;
  if (evaluation.iteration <= last_evaluation_) return findings;
  last_evaluation_ = evaluation.iteration;
  const double frechet = value_of(evaluation, "frechet"), accuracy = value_of(evaluation, "class_accuracy");
  if (const auto best = best_.find("frechet"); best != best_.end()) {
    const double ratio = frechet / best->second;
    judge({"frechet", bounds_.frechet > 0 && ratio > bounds_.frechet, ratio, bounds_.frechet,
           "the Fr\u00e9chet distance " + figure(frechet) + " is " + figure(ratio) + " times the best " + figure(best->second) +
               " (bound: " + figure(bounds_.frechet) + " times)",
           true},
          evaluation, findings);
  }
  if (const auto best = best_.find("class_accuracy"); best != best_.end()) {
    const double lost = 1 - accuracy / best->second;
    judge({"class_accuracy", bounds_.class_accuracy > 0 && lost > bounds_.class_accuracy, lost, bounds_.class_accuracy,
           "the class accuracy " + figure(accuracy) + " has lost " + figure(100 * lost) + " % of the best " + figure(best->second) +
               " (bound: " + figure(100 * bounds_.class_accuracy) + " %)",
           true},
          evaluation, findings);
  }
  if (frechet > 0 && !(best_.contains("frechet") && best_["frechet"] <= frechet)) best_["frechet"] = frechet;
  if (accuracy > 0 && !(best_.contains("class_accuracy") && best_["class_accuracy"] >= accuracy)) best_["class_accuracy"] = accuracy;
  return findings;
}

bool TrainingHealth::persists(const Watch& watch, const Bound& bound, const HealthReport& report) const {
  constexpr std::int64_t kMinReports = 2;
  if (watch.reports < kMinReports) return false;
  const auto images = static_cast<double>(report.images - watch.since_images);
  return bound.at_once || images >= bounds_.sustained * static_cast<double>(report.images_total);
}

void TrainingHealth::judge(const Bound& bound, const HealthReport& report, std::vector<HealthFinding>& findings) {
  const auto known = watches_.find(bound.code);
  if (known == watches_.end() && !bound.broken) return;
  Watch& watch = watches_[bound.code];
  // A row of reports that speak for a change: broken ones before the alarm, kept ones while it holds.
  if (bound.broken == watch.holds) {
    watch.reports = 0;
    if (!watch.holds) watches_.erase(bound.code);
    return;
  }
  if (watch.reports++ == 0) {
    watch.since_iteration = report.iteration;
    watch.since_images = report.images;
  }
  if (!persists(watch, bound, report)) return;
  HealthFinding finding;
  finding.code = bound.code;
  finding.is_over = watch.holds;
  finding.stage = report.stage;
  finding.iteration = report.iteration;
  finding.images = report.images;
  finding.since_iteration = watch.since_iteration;
  finding.since_images = watch.since_images;
  finding.value = bound.value;
  finding.bound = bound.bound;
  finding.reason = bound.reason + " since iteration " + std::to_string(watch.since_iteration) + " (" +
                   with_commas(watch.since_images) + " images)";
  finding.hint = hint_of(bound.code);
  findings.push_back(finding);
  watch = {0, 0, 0, !watch.holds};
  if (!watch.holds) watches_.erase(bound.code);
}

}  // namespace onestep
