// Committed checkpoints of a coordinator's jobs and the automatic evaluations beside the runs.
#include "coordinator/coordinator.h"

#include "common/log.h"
#include "coordinator/checkpoint_registry.h"
#include "coordinator/job_view.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxWaitingEvaluations = 2;

JobFilter evaluations_of(const std::string& parent) {
  JobFilter filter;
  filter.parent = parent;
  return filter;
}

}  // namespace

void Coordinator::checkpoint_committed(const JobRecord& job, const CheckpointRecord& checkpoint) {
  if (!store_.insert_checkpoint(checkpoint)) return;
  emit(job.id, "checkpoint", checkpoint_view(checkpoint));
  log_info(job.id + ": checkpoint at iteration " + std::to_string(checkpoint.iteration),
           {.job = job.id, .attempt = checkpoint.attempt});
  if (job.kind == "distill") schedule_evaluation(job, checkpoint);
}

void Coordinator::schedule_evaluation(const JobRecord& job, const CheckpointRecord& checkpoint) {
  const JobSpec distill = resolved_spec(job);
  if (std::get<DistillSpec>(distill.options).evaluation.detector.empty()) return;
  for (const JobRecord& known : store_.jobs(evaluations_of(job.id))) {
    // Another attempt's checkpoint of the same iteration holds the same weights.
    const bool useless = known.state == JobState::kFailed || known.state == JobState::kCancelled;
    if (known.parent_iteration == checkpoint.iteration && !useless) return;
  }
  const JobSpec spec = evaluation_spec(distill, checkpoint);
  JobRecord evaluation;
  evaluation.number = store_.next_job_number();
  evaluation.name = spec.name;
  evaluation.id = spec.name + "-" + std::to_string(evaluation.number);
  evaluation.kind = spec.kind;
  evaluation.pipeline = job.pipeline;
  evaluation.parent = job.id;
  evaluation.parent_iteration = checkpoint.iteration;
  evaluation.ranks = spec.ranks;
  evaluation.spec = to_json(spec);
  evaluation.reason = "checkpoint committed";
  evaluation.created = options_.clock();
  store_.insert_job(evaluation);
  emit_state(evaluation);
  apply(evaluation, JobEvent::kDependenciesMet, "ready");
  trim_evaluations(job.id, kMaxWaitingEvaluations,
                   "skipped: newer checkpoints wait for their evaluation");
  pins_due_.insert(job.id);
}

void Coordinator::trim_evaluations(const std::string& parent, std::size_t keep,
                                   const std::string& reason) {
  std::vector<JobRecord> waiting;
  for (const JobRecord& job : store_.jobs(evaluations_of(parent))) {
    if (job.state != JobState::kQueued) continue;
    if (job.attempts == 0 || keep == 0) waiting.push_back(job);
  }
  for (std::size_t i = 0; i + keep < waiting.size(); ++i) {
    waiting[i].ended = options_.clock();
    apply(waiting[i], JobEvent::kCancelled, reason);
  }
  if (!waiting.empty()) pins_due_.insert(parent);
}

void Coordinator::record_evaluation(const JobRecord& evaluation) {
  const json result = evaluation.outcome.value("result", json::object());
  const JobRecord parent = find_job(evaluation.parent);
  const CheckpointSpec::Best wanted = parse_job_spec(parent.spec, options_.data, "job " + parent.id).checkpoint.best;
  for (CheckpointRecord& checkpoint : store_.checkpoints(evaluation.parent)) {
    if (checkpoint.iteration != evaluation.parent_iteration) continue;
    const std::vector<MetricPoint> points = evaluation_metrics(result, checkpoint);
    if (!points.empty()) {
      json values;
      for (const MetricPoint& point : points) values[point.key] = point.value;
      store_.insert_metrics(evaluation.parent, points);
      emit(evaluation.parent, "metric", metric_event(points.front(), values));
    }
    checkpoint.frechet = finite_figure(result, "frechet");
    checkpoint.score = finite_figure(result, wanted.metric);
    if (!checkpoint.score) {
      log_warning(evaluation.id + ": its result has no figure \"" + wanted.metric + "\", which checkpoint.best of " + parent.id + " names");
    }
    store_.update_checkpoint(checkpoint);
    emit(evaluation.parent, "checkpoint", checkpoint_view(checkpoint));
    judge_evaluation(parent, checkpoint, result);
  }
  for (const CheckpointRecord& changed : mark_best(store_.checkpoints(evaluation.parent), wanted.direction == "highest")) {
    store_.update_checkpoint(changed);
    emit(evaluation.parent, "checkpoint", checkpoint_view(changed));
  }
}

std::optional<JobRecord> Coordinator::source_of_export(const JobRecord& job, const std::string& model) {
  JobFilter any;
  for (const JobRecord& one : store_.jobs(any)) {
    if (one.kind == "distill" && one.number < job.number && run_folder(one.id) == model) return one;
  }
  return std::nullopt;
}

std::string Coordinator::unfinished_evaluation(const JobRecord& job) {
  if (job.kind != "export" || job.spec.value("selection", "auto") == "last") return "";
  const std::string named = job.spec.value("model", "");
  std::optional<JobRecord> source;
  if (named.starts_with("@")) {
    for (const std::string& id : job.after) {
      if (const JobRecord needed = find_job(id); needed.name == named.substr(1) && needed.kind == "distill") source = needed;
    }
  } else {
    source = source_of_export(job, named);
  }
  // Of a run that goes on, the best so far is taken.
  if (!source || !is_terminal(source->state)) return "";
  for (const JobRecord& evaluation : store_.jobs(evaluations_of(source->id))) {
    if (!is_terminal(evaluation.state) && evaluation.state != JobState::kInterrupted) {
      return evaluation.id + ", which is " + to_string(evaluation.state);
    }
  }
  return "";
}

void Coordinator::select_checkpoint(const JobRecord& job, ExportSpec& spec) {
  if (spec.selection == "last") return;
  if (const std::optional<JobRecord> source = source_of_export(job, spec.model)) {
    for (const CheckpointRecord& checkpoint : store_.checkpoints(source->id)) {
      if (!checkpoint.best) continue;
      spec.model = checkpoint.folder;
      return;
    }
  }
  if (spec.selection == "auto") return;
  throw Error(ErrorCode::kNotFound, "job " + job.id + ": selection best: " + spec.model +
                                        "; expected the run folder of a distill job of this coordinator with an evaluated checkpoint, "
                                        "found none; \"last\" takes its final state");
}

void Coordinator::update_pins(const std::string& job) {
  const std::vector<CheckpointRecord> checkpoints = store_.checkpoints(job);
  std::set<std::string> wanted;
  for (const CheckpointRecord& checkpoint : checkpoints) {
    if (checkpoint.best) wanted.insert(checkpoint.folder);
  }
  for (const JobRecord& evaluation : store_.jobs(evaluations_of(job))) {
    if (is_terminal(evaluation.state)) continue;
    wanted.insert(std::get<EvaluateSpec>(resolved_spec(evaluation).options).model);
  }
  set_pins(checkpoints, wanted);
}

}  // namespace onestep
