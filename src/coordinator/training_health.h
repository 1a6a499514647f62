// Pure: reads the figures that a distillation reports and says when it goes wrong, why, and since when.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/job_spec.h"

namespace onestep {

struct HealthReport {
  std::string stage;  // "regression", "fake score", "distill": DistillSpec's phases; others are judged for non-finite figures alone
  std::int64_t iteration = 0;
  std::int64_t images = 0;
  std::int64_t images_total = 0;         // of the whole run
  std::map<std::string, double> values;  // may be NaN or infinite
};

// An alarm that begins, or (is_over) one that was raised earlier and no longer holds.
struct HealthFinding {
  std::string code;  // one of training_alarm_codes()
  bool is_over = false;
  std::string stage;
  std::int64_t iteration = 0;  // of the report that decided it
  std::int64_t images = 0;
  std::int64_t since_iteration = 0;  // of the first report that broke the bound
  std::int64_t since_images = 0;
  double value = 0;  // may be NaN or infinite
  double bound = 0;
  std::string reason;  // value, bound and since when, for people
  std::string hint;    // what to look at
};

// Every code, in a fixed order; "rank_*" are the watchdog's (rank_watchdog.h).
const std::vector<std::string>& training_alarm_codes();

// Bounds are relative to the run's own early phases, which a collapse has not touched yet: what is normal for one data set and
// network is not for another. A bound must be broken for a share of the run's images (`sustained`) and by two reports at least,
// for single reports are single batches. Reports that are repeated (a resumed attempt) are passed over, so that replaying them
// changes nothing. Values in, values out: the whole state is to_json().
class TrainingHealth {
 public:
  explicit TrainingHealth(const JobSpec& spec);
  // State of an earlier process. Errors: kCorrupt when `state` is none of to_json()'s.
  TrainingHealth(const JobSpec& spec, const nlohmann::json& state);

  std::vector<HealthFinding> observe(const HealthReport& report);
  // Figures of a checkpoint's evaluation: "frechet", "class_accuracy"; others are passed over. In the order of iterations.
  std::vector<HealthFinding> observe_evaluation(const HealthReport& evaluation);

  // A person has resumed the run: what is repeated is judged anew, against the same references.
  void resume();

  [[nodiscard]] nlohmann::json to_json() const;

 private:
  // A bound that is or was broken.
  struct Watch {
    std::int64_t since_iteration = 0, since_images = 0;
    std::int64_t reports = 0;  // in a row: broken ones, or kept ones while the alarm holds
    bool holds = false;
  };
  struct Bound {
    const char* code;
    bool broken;
    double value, bound;
    std::string reason;
    bool at_once = false;  // two reports suffice, whatever their images
  };

  void remember(const HealthReport& report);
  [[nodiscard]] std::vector<Bound> distill_bounds(const HealthReport& report) const;
  void judge(const Bound& bound, const HealthReport& report, std::vector<HealthFinding>& findings);
  [[nodiscard]] bool persists(const Watch& watch, const Bound& bound, const HealthReport& report) const;
  // The median of what is kept under `key`; NaN: nothing yet.
  [[nodiscard]] double early(const std::string& key) const;

  HealthSpec bounds_;
  double batch_ = 0;             // fresh samples an iteration
  bool matches_distributions_ = true;
  bool is_l2_ = true;            // the regression's distance
  std::int64_t last_iteration_ = -1;
  std::int64_t last_evaluation_ = -1;
  std::map<std::string, std::vector<double>> early_;  // by figure: the newest few of an early phase
  std::map<std::string, double> best_;                // of evaluations
  std::map<std::string, Watch> watches_;              // by code
};

}  // namespace onestep
