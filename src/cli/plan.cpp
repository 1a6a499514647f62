#include "cli/plan.h"

#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <utility>

#include "cli/local_program.h"
#include "cli/text.h"
#include "common/config.h"
#include "common/error.h"
#include "common/pipeline.h"

namespace onestep {
namespace {

using nlohmann::json;

std::string bytes_text(std::int64_t bytes) {
  constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

void add_memory_rows(std::vector<std::vector<std::string>>& rows, const json& bytes, std::int64_t ranks) {
  static const std::vector<std::pair<const char*, const char*>> kParts = {
      {"parameters", "parameters of all networks"},
      {"gradients", "gradients"},
      {"sum_buffers", "more gradients, for the exact sum"},
      {"moments", "optimizer's moments"},
      {"average", "moving average"},
      {"checkpoint_copy", "copy for checkpoints"},
      {"exchange", "exchange between ranks"},
      {"activations", "activations of a micro-batch"},
      {"process", "process and data set"}};
  for (const auto& [key, what] : kParts) rows.push_back({what, bytes_text(bytes.at(key).get<std::int64_t>())});
  rows.push_back({"a rank", bytes_text(bytes.at("total").get<std::int64_t>())});
  rows.push_back({with_thousands(ranks) + (ranks == 1 ? " rank" : " ranks"),
                  bytes_text(bytes.at("total").get<std::int64_t>() * ranks)});
}

}  // namespace

std::int64_t bytes_from_text(const std::string& text) {
  std::size_t used = 0;
  double value = -1;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
  }
  static const std::string kUnits = "KMGT";
  const std::string rest = text.substr(std::min(used, text.size()));
  const std::size_t unit = rest.empty() ? std::string::npos : kUnits.find(rest[0]);
  const bool known = rest.empty() || (unit != std::string::npos && (rest.size() == 1 || rest.substr(1) == "iB"));
  if (!(value > 0) || !known || value > 1e15) {
    throw Error(ErrorCode::kUsage, "--memory: expected bytes such as 16G or 512M, found " + text);
  }
  return static_cast<std::int64_t>(value * std::pow(1024.0, unit == std::string::npos ? 0 : static_cast<double>(unit) + 1));
}

json judged_plan(json plan, std::int64_t memory, double hours) {
  plan["memory"] = memory;
  for (json& job : plan.at("jobs")) {
    if (job.contains("bytes_a_rank")) {
      job["fits"] = job.at("bytes_a_rank").at("total").get<std::int64_t>() * job.at("ranks").get<std::int64_t>() <= memory;
    }
    if (hours > 0) job["images_per_second"] = job.at("images").get<double>() / (hours * 3600);
  }
  return plan;
}

std::string plan_text(const json& plan) {
  std::string text;
  const auto memory = plan.at("memory").get<std::int64_t>();
  for (const json& job : plan.at("jobs")) {
    std::vector<std::vector<std::string>> rows;
    const auto ranks = job.at("ranks").get<std::int64_t>();
    rows.push_back({"images", with_thousands(job.at("images").get<std::int64_t>())});
    if (job.contains("images_per_second")) {
      rows.push_back({"images/s needed", with_thousands(std::llround(job.at("images_per_second").get<double>()))});
    }
    if (job.contains("parameters")) {
      rows.push_back({"parameters of a network", with_thousands(job.at("parameters").get<std::int64_t>())});
      rows.push_back({"networks", with_thousands(job.at("networks").get<std::int64_t>())});
    }
    if (job.contains("pair_set_bytes")) {
      rows.push_back({"pair set on disk", bytes_text(job.at("pair_set_bytes").get<std::int64_t>())});
    }
    if (job.contains("bytes_a_rank")) add_memory_rows(rows, job.at("bytes_a_rank"), ranks);
    for (std::vector<std::string>& row : rows) row[0] = "  " + row[0];
    text += job.at("name").get<std::string>() + " (" + job.at("kind").get<std::string>() + ")\n" + table(rows, 2);
    if (job.contains("fits")) {
      text += job.at("fits").get<bool>()
                  ? "  fits into " + bytes_text(memory) + "\n"
                  : "  DOES NOT FIT into " + bytes_text(memory) + ": fewer ranks here, smaller micro-batches (more of them)\n";
    }
  }
  return text;
}

int print_plan(const PlanOptions& options) {
  const std::filesystem::path file = std::filesystem::absolute(options.file).lexically_normal();
  json document = read_json_file(file.string());
  for (const std::string& text : options.overrides) apply_pipeline_override(document, text);
  const Pipeline pipeline = parse_pipeline(document, file.parent_path().string(), options.file);

  json plan = {{"jobs", json::array()}};
  std::int64_t available = 0;
  for (const PipelineJob& job : pipeline.jobs) {
    const std::string& kind = job.spec.kind;
    if (kind != "train_teacher" && kind != "generate_pairs" && kind != "distill") continue;
    std::vector<std::string> command = {sibling_program("onestep-worker"), file.string(), "--plan", job.spec.name};
    for (const std::string& text : options.overrides) command.insert(command.end(), {"--set", text});
    if (options.ranks > 0) command.insert(command.end(), {"--ranks", std::to_string(options.ranks)});
    const ProgramResult run = run_program(command);
    if (run.exit_status != 0) return run.exit_status;
    json planned = json::parse(run.output, nullptr, false);
    if (!planned.is_object() || !planned.contains("available_bytes")) {
      throw Error(ErrorCode::kInternal, command[0] + ": expected a plan on standard output, found '" + run.output + "'");
    }
    available = planned.at("available_bytes").get<std::int64_t>();
    planned.erase("available_bytes");
    plan["jobs"].push_back(std::move(planned));
  }
  if (plan.at("jobs").empty()) {
    throw Error(ErrorCode::kUsage, options.file + ": expected a train_teacher, generate_pairs or distill job, found none");
  }
  plan = judged_plan(std::move(plan), options.memory > 0 ? options.memory : available, options.hours);
  std::cout << (options.json ? plan.dump() + "\n" : plan_text(plan));
  bool fits = true;
  for (const json& job : plan.at("jobs")) fits = fits && job.value("fits", true);
  return fits ? 0 : exit_status(ErrorCode::kConflict);
}

}  // namespace onestep
