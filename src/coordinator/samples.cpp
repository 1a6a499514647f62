#include "coordinator/samples.h"

#include <map>

#include "common/durable_file.h"

namespace onestep {

std::vector<SampleRecord> samples_of(Coordinator& coordinator, const std::string& id) {
  const JobRecord job = coordinator.job(id);
  JobFilter filter;
  filter.parent = job.id;
  std::vector<JobRecord> evaluations = coordinator.jobs(filter);
  if (job.kind == "evaluate") evaluations.push_back(job);
  std::map<std::int64_t, SampleRecord> by_iteration;  // a later evaluation replaces an earlier one
  for (const JobRecord& evaluation : evaluations) {
    if (evaluation.state != JobState::kSucceeded) continue;
    SampleRecord sample;
    sample.file = coordinator.run_folder(evaluation.id) + "/panel.png";
    if (!file_exists(sample.file)) continue;
    sample.iteration = evaluation.parent_iteration;
    sample.evaluation = evaluation.id;
    const nlohmann::json result = evaluation.outcome.value("result", nlohmann::json::object());
    if (const auto images = result.find("images"); images != result.end() && images->is_number()) {
      sample.images = images->get<std::int64_t>();
    }
    if (const auto frechet = result.find("frechet"); frechet != result.end() && frechet->is_number()) {
      sample.frechet = frechet->get<double>();
    }
    by_iteration[sample.iteration] = std::move(sample);
  }
  std::vector<SampleRecord> samples;
  for (auto& [iteration, sample] : by_iteration) samples.push_back(std::move(sample));
  return samples;
}

}  // namespace onestep
