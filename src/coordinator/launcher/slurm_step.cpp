#include "coordinator/launcher/slurm_step.h"

#include <algorithm>

#include "common/error.h"
#include "common/log.h"

namespace onestep {
namespace {

using namespace std::chrono_literals;

constexpr auto kNodesAge = 5s;  // of what is known of the allocation
constexpr auto kStepAge = 2s;

}  // namespace

SlurmStep::SlurmStep(SlurmStepOptions options)
    : ChildLauncher(options.worker),
      options_(std::move(options)),
      slurm_options_(slurm_options(options_.slurm)),
      slurm_(children()) {}

std::vector<std::string> SlurmStep::command(const LaunchRequest& request) const {
  const int nodes = (request.ranks + options_.ranks_per_node - 1) / options_.ranks_per_node;
  std::vector<std::string> command = {options_.programs.srun,
                                      "--jobid=" + options_.allocation,
                                      "--job-name=" + slurm_name(request),
                                      "--mpi=pmix",
                                      "--ntasks=" + std::to_string(request.ranks),
                                      "--nodes=" + std::to_string(nodes),
                                      // Ranks stand one behind the other on a node: the first rounds of the sum stay inside it.
                                      "--distribution=block",
                                      "--cpu-bind=none",
                                      request.background ? "--overlap" : "--exact",
                                      "--kill-on-bad-exit=1",
                                      "--wait=60",
                                      "--input=none"};
  command.insert(command.end(), slurm_options_.begin(), slurm_options_.end());
  for (std::string& word : worker_command(request)) command.push_back(std::move(word));
  return command;
}

ProcessIdentity SlurmStep::launch(const LaunchRequest& request) {
  ProcessIdentity process = ChildLauncher::launch(request);
  process.place = slurm_name(request);
  return process;
}

std::optional<ProcessEnd> SlurmStep::poll(const ProcessIdentity& process) {
  const std::optional<ProcessEnd> end = ChildLauncher::poll(process);
  if (!end || children().knows(process)) return end;
  // The srun of an earlier coordinator is gone, or it ran on another node; its step may go on.
  const std::optional<SlurmAnswer> steps =
      slurm_.recent({options_.programs.scontrol, "--oneliner", "show", "step", options_.allocation}, kStepAge);
  if (!steps || is_unreachable(*steps) || find_slurm_step(steps->output, process.place)) return std::nullopt;
  return end;
}

std::optional<ProcessIdentity> SlurmStep::find(const LaunchRequest& request) {
  const std::string name = slurm_name(request);
  if (std::optional<ProcessIdentity> srun = marked_leader(attempt_mark(request), "srun")) {
    srun->place = name;
    return srun;
  }
  if (step_of(name)) return ProcessIdentity{0, 0, name};
  return std::nullopt;
}

std::optional<std::string> SlurmStep::step_of(const std::string& name) {
  try {
    return find_slurm_step(
        slurm_.ask({options_.programs.scontrol, "--oneliner", "show", "step", options_.allocation}).output, name);
  } catch (const Error& error) {
    log_warning(std::string("steps of Slurm job ") + options_.allocation + ": " + error.what());
    return std::nullopt;
  }
}

void SlurmStep::signal_step(const std::string& step, const char* signal) {
  try {
    const SlurmAnswer answer = slurm_.ask({options_.programs.scancel, std::string("--signal=") + signal, step});
    if (answer.exit_status != 0) log_warning("scancel " + step + ": " + answer.errors);
  } catch (const Error& error) {
    log_warning("scancel " + step + ": " + error.what());
  }
}

void SlurmStep::terminate(const ProcessIdentity& process) {
  // srun would kill the ranks on a SIGTERM of its own; this one reaches the ranks, which save.
  if (const std::optional<std::string> step = step_of(process.place)) {
    signal_step(*step, "TERM");
  } else {
    ChildLauncher::terminate(process);
  }
}

int SlurmStep::kill_all(const LaunchRequest& request) {
  int killed = ChildLauncher::kill_all(request);
  if (const std::optional<std::string> step = step_of(slurm_name(request))) {
    signal_step(*step, "KILL");
    ++killed;
  }
  return killed;
}

std::optional<Capacity> SlurmStep::capacity(int configured) {
  const auto ask = [&](const char* what, const std::string& name) {
    return slurm_.recent({options_.programs.scontrol, "--oneliner", "show", what, name}, kNodesAge);
  };
  const std::optional<SlurmAnswer> job = ask("job", options_.allocation);
  if (!job || is_unreachable(*job)) return std::nullopt;
  const std::optional<SlurmJob> allocation = parse_slurm_job(job->output);
  if (!allocation || has_ended(*allocation) || allocation->nodes.empty()) return Capacity{0, false};
  const std::optional<SlurmAnswer> nodes = ask("node", allocation->nodes);
  if (!nodes || is_unreachable(*nodes)) return std::nullopt;
  int slots = count_usable_nodes(nodes->output) * options_.ranks_per_node;
  if (configured > 0) slots = std::min(slots, configured);
  return Capacity{slots, false};
}

}  // namespace onestep
