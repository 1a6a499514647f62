#include "coordinator/checkpoint_registry.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "common/checkpoint_manifest.h"
#include "common/durable_file.h"
#include "common/error.h"
#include "common/log.h"
#include "common/run_folder.h"
#include "coordinator/leases.h"
#include "coordinator/message_fields.h"

namespace onestep {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kMessage = "checkpoint_committed";

bool is_pinned(const std::string& folder) {
  const fs::path path(folder);
  return file_exists((path.parent_path() / "pins" / path.filename()).string());
}

}  // namespace

CheckpointRecord committed_checkpoint(const std::string& job, const std::string& run_folder,
                                      const json& body, double now) {
  CheckpointRecord checkpoint;
  checkpoint.job = job;
  checkpoint.attempt = static_cast<int>(integer_field(body, kMessage, "attempt", 1, INT32_MAX));
  checkpoint.iteration = integer_field(body, kMessage, "iteration", 0, INT64_MAX);
  checkpoint.images = integer_field(body, kMessage, "images", 0, INT64_MAX);
  checkpoint.bytes = integer_field(body, kMessage, "bytes", 0, INT64_MAX);
  checkpoint.digest = text_field(body, kMessage, "digest");
  checkpoint.committed = now;
  const std::string expected = checkpoint_folder_name(checkpoint.iteration, checkpoint.attempt);
  const std::string found = fs::path(text_field(body, kMessage, "folder")).filename().string();
  if (found != expected) {
    throw Error(ErrorCode::kCorrupt, "checkpoint_committed message: field folder; expected " +
                                         expected + ", found " + found);
  }
  checkpoint.folder = checkpoints_folder(run_folder) + "/" + expected;
  return checkpoint;
}

std::vector<CheckpointRecord> checkpoints_on_disk(const std::string& job,
                                                  const std::string& run_folder, double now) {
  std::vector<CheckpointRecord> checkpoints;
  if (!fs::exists(checkpoints_folder(run_folder))) return checkpoints;
  for (const std::string& folder : list_checkpoints(checkpoints_folder(run_folder))) {
    try {
      const CheckpointManifest manifest = read_checkpoint_manifest(folder, false);
      CheckpointRecord checkpoint;
      checkpoint.job = job;
      checkpoint.folder =
          checkpoints_folder(run_folder) + "/" + fs::path(folder).filename().string();
      checkpoint.attempt = manifest.attempt;
      checkpoint.iteration = manifest.iteration;
      checkpoint.images = manifest.images;
      for (const CheckpointFile& file : manifest.files) {
        checkpoint.bytes += static_cast<std::int64_t>(file.bytes);
      }
      checkpoint.digest = checkpoint_digest(folder);
      checkpoint.committed = now;
      checkpoints.push_back(std::move(checkpoint));
    } catch (const Error& error) {
      log_warning(std::string("checkpoint passed over: ") + error.what());
    }
  }
  return checkpoints;
}

std::int64_t progress_on_disk(const std::string& run_folder) {
  std::int64_t newest = 0;
  for (const CheckpointRecord& checkpoint : checkpoints_on_disk("", run_folder, 0)) {
    newest = std::max(newest, checkpoint.iteration);
  }
  return newest + count_shard_files(run_folder);
}

JobSpec evaluation_spec(const JobSpec& distill, const CheckpointRecord& checkpoint) {
  const auto& options = std::get<DistillSpec>(distill.options);
  JobSpec spec;
  spec.name = distill.name + "-eval-" + std::to_string(checkpoint.iteration);
  spec.kind = "evaluate";
  spec.seed = distill.seed;
  spec.numerics = distill.numerics;
  EvaluateSpec evaluate;
  evaluate.model = checkpoint.folder;
  evaluate.prompts = options.prompts;
  evaluate.sampler.kind = "one_step";
  evaluate.sampler.sigma_max = options.generator_sigma;
  if (options.student_timesteps.size() > 1) {
    evaluate.sampler.kind = "few_step";
    evaluate.sampler.timesteps = options.student_timesteps;
  }
  evaluate.count = options.evaluation.count;
  evaluate.dataset = options.evaluation.dataset;
  evaluate.detector = options.evaluation.detector;
  spec.options = evaluate;
  return spec;
}

std::vector<MetricPoint> evaluation_metrics(const json& result,
                                            const CheckpointRecord& checkpoint) {
  std::vector<MetricPoint> points;
  if (!result.is_object()) return points;
  for (const auto& [name, value] : result.items()) {
    if (!value.is_number() || !std::isfinite(value.get<double>())) continue;
    MetricPoint& point = points.emplace_back();
    point.key = "eval." + name;
    point.stage = "evaluation";
    point.iteration = checkpoint.iteration;
    point.images = checkpoint.images;
    point.attempt = checkpoint.attempt;
    point.value = value.get<double>();
  }
  return points;
}

std::optional<double> finite_figure(const json& result, const std::string& name) {
  const auto found = result.is_object() ? result.find(name) : result.end();
  if (found == result.end() || !found->is_number() || !std::isfinite(found->get<double>())) return std::nullopt;
  return found->get<double>();
}

std::vector<CheckpointRecord> mark_best(const std::vector<CheckpointRecord>& checkpoints,
                                        bool highest) {
  const CheckpointRecord* best = nullptr;
  for (const CheckpointRecord& checkpoint : checkpoints) {
    if (!checkpoint.score) continue;
    const bool better = best != nullptr && (highest ? *checkpoint.score > *best->score
                                                    : *checkpoint.score < *best->score);
    if (best == nullptr || better) best = &checkpoint;
  }
  std::vector<CheckpointRecord> changed;
  for (const CheckpointRecord& checkpoint : checkpoints) {
    const bool is_best = &checkpoint == best;
    if (checkpoint.best == is_best) continue;
    changed.push_back(checkpoint);
    changed.back().best = is_best;
  }
  return changed;
}

void set_pins(const std::vector<CheckpointRecord>& checkpoints,
              const std::set<std::string>& wanted) {
  for (const CheckpointRecord& checkpoint : checkpoints) {
    const bool pinned = is_pinned(checkpoint.folder);
    const bool wants = wanted.contains(checkpoint.folder);
    if (pinned == wants) continue;
    try {
      if (wants) {
        pin_checkpoint(checkpoint.folder);
      } else {
        unpin_checkpoint(checkpoint.folder);
      }
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kNotFound) throw;
      log_warning(std::string("not pinned: ") + error.what());
    }
  }
}

}  // namespace onestep
