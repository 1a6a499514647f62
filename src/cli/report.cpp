#include "cli/report.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <utility>
#include <vector>

#include "cli/job_commands.h"
#include "cli/text.h"
#include "common/build_info.h"
#include "common/durable_file.h"
#include "common/error.h"

namespace onestep {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

const json& job_named(const std::map<std::string, json>& jobs, const std::string& name) {
  const auto found = jobs.find(name);
  if (found == jobs.end()) throw Error(ErrorCode::kNotFound, "the pipeline has no job '" + name + "'");
  const std::string state = found->second.value("state", "");
  if (state != "succeeded") {
    throw Error(ErrorCode::kConflict, "job '" + name + "': expected it succeeded, found it " + state);
  }
  return found->second;
}

const json& result_of(const std::map<std::string, json>& jobs, const std::string& name, const char* figure) {
  const json& job = job_named(jobs, name);
  if (!job.contains("result") || !job["result"].is_object() || !job["result"].contains(figure)) {
    throw Error(ErrorCode::kNotFound, "job '" + name + "': its result has no '" + figure + "'");
  }
  return job["result"][figure];
}

// "heun18": what the teacher was judged with.
std::string sampler_of(const json& evaluation, const std::string& name) {
  const json::json_pointer kind("/spec/sampler/kind"), steps("/spec/sampler/steps");
  if (!evaluation.contains(kind) || !evaluation.contains(steps)) {
    throw Error(ErrorCode::kNotFound, "job '" + name + "': its spec has no sampler");
  }
  return evaluation.at(kind).get<std::string>() + std::to_string(evaluation.at(steps).get<std::int64_t>());
}

// Of the keys under /frechet: that of the teacher in many steps, "teacher_heun18".
std::string teacher_key(const ordered_json& report, const std::string& where) {
  const ordered_json::json_pointer path("/frechet");
  if (report.contains(path)) {
    for (const auto& item : report.at(path).items()) {
      if (item.key().starts_with("teacher_") && item.key() != "teacher_one_step") return item.key();
    }
  }
  throw Error(ErrorCode::kCorrupt, where + ": /frechet: expected a figure of the teacher, found none");
}

// From the first job's start to the last one's end, pauses included.
double total_seconds(const std::map<std::string, json>& jobs) {
  double first = 0.0, last = 0.0;
  for (const auto& [name, job] : jobs) {
    for (const json& attempt : job.at("attempts")) {
      if (!attempt.at("started").is_number() || !attempt.at("ended").is_number()) continue;
      const double started = attempt["started"], ended = attempt["ended"];
      first = first == 0.0 ? started : std::min(first, started);
      last = std::max(last, ended);
    }
  }
  return last - first;
}

const ordered_json& figure(const ordered_json& report, const std::string& pointer, const std::string& where) {
  const ordered_json::json_pointer path(pointer);
  if (!report.contains(path)) throw Error(ErrorCode::kCorrupt, where + ": " + pointer + ": expected a figure, found none");
  return report.at(path);
}

}  // namespace

ordered_json make_report(const std::map<std::string, json>& jobs) {
  const auto figure_of = [&](const char* job, const char* key) -> json { return result_of(jobs, job, key); };
  ordered_json report;
  report["ranks"] = figure_of("distill", "ranks");
  report["commit"] = build_commit();
  report["seconds"] = {{"train_detector", figure_of("detector", "seconds")},
                       {"train_teacher", figure_of("teacher", "seconds")},
                       {"generate_pairs", figure_of("pairs", "seconds")},
                       {"distill", figure_of("distill", "seconds")},
                       {"total", total_seconds(jobs)}};
  const std::string sampler = sampler_of(job_named(jobs, "evaluate_teacher"), "evaluate_teacher");
  report["frechet"]["real_split_half"] = figure_of("evaluate_real", "frechet");
  report["frechet"]["teacher_" + sampler] = figure_of("evaluate_teacher", "frechet");
  report["frechet"]["teacher_one_step"] = figure_of("evaluate_teacher_one_step", "frechet");
  // A pipeline need not have this one.
  if (jobs.contains("evaluate_regression_only")) report["frechet"]["regression_only"] = figure_of("evaluate_regression_only", "frechet");
  report["frechet"]["one_step"] = figure_of("evaluate_one_step", "frechet");
  report["class_accuracy"] = {{"teacher_" + sampler, figure_of("evaluate_teacher", "class_accuracy")},
                              {"one_step", figure_of("evaluate_one_step", "class_accuracy")}};
  report["images_per_second"] = {{"distill", figure_of("distill", "images_per_second")},
                                 {"sample_one_step", figure_of("evaluate_one_step", "images_per_second")},
                                 {"sample_" + sampler, figure_of("evaluate_teacher", "images_per_second")}};
  report["generator_sha256"] = figure_of("distill", "generator_sha256");
  return report;
}

std::string report_table(const ordered_json& report, const std::string& where) {
  const auto number = [&](const std::string& pointer, int digits) {
    return significant(figure(report, pointer, where).get<double>(), digits);
  };
  const auto rate = [&](const std::string& pointer) {
    return with_thousands(static_cast<std::int64_t>(figure(report, pointer, where).get<double>()));
  };
  const auto time = [&](const std::string& key) {
    return clock_time(figure(report, "/seconds/" + key, where).get<double>());
  };
  const std::string teacher = teacher_key(report, where), sampler = teacher.substr(teacher.find('_') + 1);
  const std::string steps = sampler.substr(std::min(sampler.find_first_of("0123456789"), sampler.size()));
  std::vector<std::vector<std::string>> quality = {
      {"", "Fréchet distance", "class accuracy", "images/s"},
      {"real images, two halves", number("/frechet/real_split_half", 3), "", ""},
      {"teacher, " + steps + " steps", number("/frechet/" + teacher, 3), number("/class_accuracy/" + teacher, 3),
       rate("/images_per_second/sample_" + sampler)},
      {"teacher, one step", number("/frechet/teacher_one_step", 3), "", ""}};
  if (report.contains(ordered_json::json_pointer("/frechet/regression_only"))) {
    quality.push_back({"regression alone, one step", number("/frechet/regression_only", 3), "", ""});
  }
  quality.push_back({"distilled, one step", number("/frechet/one_step", 3), number("/class_accuracy/one_step", 3),
                     rate("/images_per_second/sample_one_step")});
  const std::vector<std::vector<std::string>> times = {
      {"detector", "teacher", "pairs", "distillation", "in all"},
      {time("train_detector"), time("train_teacher"), time("generate_pairs"), time("distill"), time("total")}};
  return table(quality, 1) + "\n" + table(times, 0) + "\n" + figure(report, "/ranks", where).dump() + " ranks, " +
         rate("/images_per_second/distill") + " images/s in the distillation; commit " +
         figure(report, "/commit", where).get<std::string>() + "\ngenerator " +
         figure(report, "/generator_sha256", where).get<std::string>() + "\n";
}

void write_report(const Client& client, const std::string& pipeline, const std::string& out, bool as_json) {
  const json summary = client.get("/api/v1/pipelines/" + percent_encode(pipeline));
  std::map<std::string, json> jobs;
  for (const json& job : summary.at("jobs")) {
    if (job.contains("parent") && job["parent"].is_string() && !job["parent"].get<std::string>().empty()) continue;
    jobs[job.at("name").get<std::string>()] = client.get(job_target(job.at("id").get<std::string>()));
  }
  const ordered_json report = make_report(jobs);
  const std::string picture = job_named(jobs, "evaluate_one_step").at("run_folder").get<std::string>() + "/comparison.png";
  create_folders_durably(std::filesystem::absolute(out).lexically_normal().string());
  write_file_durably(out + "/grid.png", read_file(picture));
  write_file_durably(out + "/report.json", report.dump(2) + "\n");
  show_saved_report(out, as_json);
}

void show_saved_report(const std::string& out, bool as_json) {
  const std::string path = out + "/report.json";
  const ordered_json report = ordered_json::parse(read_file(path), nullptr, false);
  if (!report.is_object()) throw Error(ErrorCode::kCorrupt, path + ": expected a JSON object");
  if (as_json) {
    std::cout << report.dump() << "\n";
    return;
  }
  std::cout << report_table(report, path) << std::filesystem::absolute(out + "/grid.png").lexically_normal().string()
            << "\n";
}

}  // namespace onestep
