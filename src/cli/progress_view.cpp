#include "cli/progress_view.h"

#include <algorithm>
#include <array>
#include <ostream>
#include <utility>

#include "cli/text.h"

namespace onestep {
namespace {

using nlohmann::json;

std::string text_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

double number_of(const json& object, const char* key, double fallback) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<double>() : fallback;
}

json progress_of(const json& job) {
  const auto found = job.find("progress");
  return found != job.end() && found->is_object() ? *found : json::object();
}

// The figure that people call the loss: the first that the job reports.
std::string loss_text(const json& progress) {
  const auto metrics = progress.find("metrics");
  if (metrics == progress.end() || !metrics->is_object()) return "";
  static constexpr std::pair<const char*, const char*> kLosses[] = {
      {"loss", "loss "}, {"loss_fake", "fake loss "}, {"loss_reg", "regression loss "}};
  for (const auto& [key, label] : kLosses) {
    const auto value = metrics->find(key);
    if (value != metrics->end() && value->is_number()) return label + significant(value->get<double>(), 3);
  }
  return "";
}

std::string running_text(const json& progress) {
  const double total = number_of(progress, "images_total", 0.0);
  const double images = number_of(progress, "images", 0.0);
  const double iterations = number_of(progress, "iterations", 0.0);
  double fraction = 0.0;
  if (total > 0) {
    fraction = images / total;
  } else if (iterations > 0) {
    fraction = number_of(progress, "iteration", 0.0) / iterations;
  }
  std::vector<std::string> parts = {bar(fraction, 20), text_of(progress, "stage")};
  if (total > 0) {
    parts.push_back(with_thousands(static_cast<std::int64_t>(images)) + "/" +
                    with_thousands(static_cast<std::int64_t>(total)) + " images");
  }
  if (const double rate = number_of(progress, "images_per_second", 0.0); rate > 0) {
    parts.push_back(with_thousands(static_cast<std::int64_t>(rate)) + " images/s");
  }
  parts.push_back(loss_text(progress));
  if (const double left = number_of(progress, "seconds_left", -1.0); left >= 0) {
    parts.push_back(clock_time(left) + " left");
  }
  std::string text;
  for (const std::string& part : parts) {
    if (!part.empty()) text += (text.empty() ? "" : "  ") + part;
  }
  return text;
}

int attempt_of(const json& job) {
  const auto attempts = job.find("attempts");
  if (attempts == job.end()) return 0;
  return attempts->is_array() ? static_cast<int>(attempts->size()) : attempts->get<int>();
}

// Everything but the name.
std::string job_text(const json& job) {
  const std::string state = text_of(job, "state");
  const json progress = progress_of(job);
  const std::string attempt = attempt_of(job) > 1 ? "  attempt " + std::to_string(attempt_of(job)) : "";
  if (state == "running" && !progress.empty()) return running_text(progress) + attempt;
  if (state == "succeeded") {
    const std::string digest = text_of(job, "digest").substr(0, 12);
    return state + (digest.empty() ? "" : "  " + digest) + attempt;
  }
  const std::string reason = text_of(job, "reason");
  if (reason.starts_with("attempt ")) return state + ": " + reason;
  return state + attempt + (reason.empty() ? "" : ": " + reason);
}

std::string cut(std::string text, std::size_t columns) {
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  if (display_width(text) <= columns) return text;
  while (!text.empty() && (display_width(text) > columns - 1 || (text.back() & 0xC0) == 0x80)) text.pop_back();
  return text + "…";
}

}  // namespace

std::string job_line(const json& job, std::size_t name_width, std::size_t columns) {
  std::string name = text_of(job, "name");
  if (name.size() < name_width) name.resize(name_width, ' ');
  return cut(name + "  " + job_text(job), columns);
}

std::string alarm_line(const json& alarm) {
  const auto ended = alarm.find("ended");
  const bool is_over = ended != alarm.end() && !ended->is_null();
  const std::string action = text_of(alarm, "action");
  std::string line = "alarm " + text_of(alarm, "code") + (is_over ? " (over)" : "") + ": " + text_of(alarm, "reason");
  if (action == "stop") line += "; the job is stopped";
  if (action == "checkpoint") line += "; a checkpoint is asked for";
  return line;
}

ProgressView::ProgressView(std::ostream& out, bool redraw, std::size_t columns)
    : out_(out), redraw_(redraw), columns_(std::max<std::size_t>(columns, 20)) {}

void ProgressView::show(const std::vector<json>& jobs) {
  if (redraw_) {
    draw_block(jobs);
  } else {
    print_changes(jobs);
  }
  out_.flush();
}

void ProgressView::note(const std::string& text) {
  out_ << text << "\n";
  drawn_.clear();  // the block starts anew below the note
  out_.flush();
}

void ProgressView::draw_block(const std::vector<json>& jobs) {
  std::size_t name_width = 0;
  for (const json& job : jobs) name_width = std::max(name_width, text_of(job, "name").size());
  std::vector<std::string> lines;
  for (const json& job : jobs) lines.push_back(job_line(job, name_width, columns_ - 1));
  if (lines == drawn_) return;
  if (!drawn_.empty()) out_ << "\x1b[" << drawn_.size() << "A";
  for (const std::string& line : lines) out_ << "\r" << line << "\x1b[K\n";
  drawn_ = lines;
}

void ProgressView::print_changes(const std::vector<json>& jobs) {
  for (const json& job : jobs) {
    // Figures, and whom a job waits for, change all the time; what it is doing changes seldom.
    const std::string name = text_of(job, "name");
    const std::string state = text_of(job, "state");
    const std::string stage = text_of(progress_of(job), "stage");
    std::string key = state;
    key += '|' + stage + '|' + std::to_string(attempt_of(job));
    std::string& printed = printed_[name];
    if (printed == key) continue;
    printed = key;
    out_ << name << ": ";
    if (state == "running" && !stage.empty()) {
      out_ << "running, " << stage;
      if (attempt_of(job) > 1) out_ << ", attempt " << attempt_of(job);
      out_ << "\n";
    } else {
      out_ << job_text(job) << "\n";
    }
  }
}

}  // namespace onestep
