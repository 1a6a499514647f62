#include "coordinator/launcher/slurm_step.h"

#include <algorithm>
#include <utility>

#include "common/error.h"
#include "common/log.h"

namespace onestep {
namespace {

using namespace std::chrono_literals;

constexpr auto kNodesAge = 5s;  // of what is known of the allocation
constexpr auto kStepAge = 2s;
constexpr auto kFreshStepAge = 500ms;  // where it decides what can be started
constexpr auto kConfigAge = 10min;

}  // namespace

SlurmStep::SlurmStep(SlurmStepOptions options)
    : ChildLauncher(options.worker),
      options_(std::move(options)),
      slurm_options_(slurm_options(options_.slurm)),
      slurm_(children()) {}

std::vector<std::string> SlurmStep::command(const LaunchRequest& request) const {
  const int nodes = (request.ranks + options_.ranks_per_node - 1) / options_.ranks_per_node;
  const auto known = attempts_.find(slurm_name(request));
  const bool placed = known != attempts_.end() && known->second.place;
  std::vector<std::string> command = {options_.programs.srun,
                                      "--jobid=" + options_.allocation,
                                      "--job-name=" + slurm_name(request),
                                      "--mpi=pmix",
                                      "--ntasks=" + std::to_string(request.ranks),
                                      "--nodes=" + std::to_string(nodes),
                                      // Ranks stand one behind the other on a node: the first rounds of the sum stay inside it.
                                      "--distribution=block",
                                      "--cpu-bind=none",
                                      request.background || placed ? "--overlap" : "--exact",
                                      "--kill-on-bad-exit=1",
                                      "--wait=60",
                                      "--input=none"};
  if (placed) command.push_back("--nodelist=" + comma_separated(known->second.place->nodes));
  if (!placed && !room_.away.empty()) command.push_back("--exclude=" + comma_separated(room_.away));
  for (const std::string& option : slurm_options_) {
    // A step that asks for no GPU sees all of the job's; each rank takes that of its slot.
    const bool chooses_gpus = option.starts_with("--gpu") || option.starts_with("--gres=") || option.starts_with("--nodelist=");
    if (!placed || !chooses_gpus) command.push_back(option);
  }
  for (std::string& word : worker_command(request)) command.push_back(std::move(word));
  return command;
}

std::vector<std::string> SlurmStep::environment(const LaunchRequest& request) const {
  std::vector<std::string> environment = ChildLauncher::environment(request);
  const auto known = attempts_.find(slurm_name(request));
  if (known != attempts_.end() && known->second.place) {
    std::vector<std::string> slots;
    for (const int slot : known->second.place->slots) slots.push_back(std::to_string(slot));
    environment.push_back("ONESTEP_LOCAL_SLOTS=" + comma_separated(slots));
  }
  return environment;
}

ProcessIdentity SlurmStep::launch(const LaunchRequest& request) {
  Attempt attempt{request.background};
  if (room_.overlap && !request.background) {
    attempt.place = place_ranks(request.ranks, options_.ranks_per_node, room_.nodes, used_slots());
    if (attempt.place && attempt.place->shared) {
      log_warning(request.job + ": no slots of its own on " + comma_separated(attempt.place->nodes) + "; it shares processors and GPUs with others");
    }
  }
  const std::string name = slurm_name(request);
  attempts_[name] = attempt;
  ProcessIdentity process = ChildLauncher::launch(request);
  process.place = name;
  return process;
}

UsedSlots SlurmStep::used_slots() const {
  UsedSlots used;
  for (const auto& [name, attempt] : attempts_) {
    if (attempt.background) continue;
    if (attempt.place) {
      for (const std::string& node : attempt.place->nodes) used[node].insert(attempt.place->slots.begin(), attempt.place->slots.end());
    } else if (const auto nodes = nodes_of_.find(name); nodes != nodes_of_.end()) {
      // Slurm chose its slots and does not say which: all of them.
      for (const std::string& node : nodes->second) {
        for (int slot = 0; slot < options_.ranks_per_node; ++slot) used[node].insert(slot);
      }
    }
  }
  return used;
}

std::optional<ProcessEnd> SlurmStep::poll(const ProcessIdentity& process) {
  attempts_.try_emplace(process.place);
  const std::optional<ProcessEnd> end = ChildLauncher::poll(process);
  if (!end || children().knows(process)) return end;
  // The srun of an earlier coordinator is gone, or it ran on another node; its step may go on.
  const std::optional<std::string> steps = shown("step", options_.allocation, kStepAge);
  if (!steps) return std::nullopt;
  for (const SlurmStepLine& step : parse_slurm_steps(*steps)) {
    if (step.name != process.place) continue;
    // Ranks end with the first node that is lost, but the step may stay.
    const std::optional<std::string> nodes = shown("node", step.nodes, kNodesAge);
    if (!nodes) return std::nullopt;
    for (const SlurmNode& node : parse_slurm_nodes(*nodes)) {
      if (!node.usable) return ProcessEnd{false, "Slurm lost node " + node.name + " of step " + step.id, false, /*machine_fault=*/true};
    }
    return std::nullopt;
  }
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
  attempts_.erase(slurm_name(request));
  return killed;
}

std::optional<std::string> SlurmStep::shown(const char* what, const std::string& name, std::chrono::milliseconds max_age) {
  std::vector<std::string> question = {options_.programs.scontrol, "--oneliner", "show", what};
  if (!name.empty()) question.push_back(name);
  const std::optional<SlurmAnswer> answer = slurm_.recent(question, max_age);
  if (!answer || is_unreachable(*answer)) return std::nullopt;
  return answer->output;
}

std::optional<std::vector<std::string>> SlurmStep::names_of(const std::string& nodes) {
  const std::optional<std::string> text = shown("node", nodes, kConfigAge);
  if (!text) return std::nullopt;
  std::vector<std::string> names;
  for (const SlurmNode& node : parse_slurm_nodes(*text)) names.push_back(node.name);
  return names;
}

bool SlurmStep::look_around(const std::string& nodes, const std::string& steps) {
  std::map<std::string, Clock::time_point> left_since;
  std::vector<LeftStep> left;
  nodes_of_.clear();
  bool known = true;
  for (const SlurmStepLine& step : parse_slurm_steps(steps)) {
    if (!is_attempt_name(step.name)) continue;
    const std::optional<std::vector<std::string>> names = names_of(step.nodes);
    known = known && names;
    if (attempts_.contains(step.name)) {
      if (names) nodes_of_[step.name] = *names;
      continue;
    }
    const auto before = left_since_.find(step.name);
    const Clock::time_point since = left_since[step.name] = before == left_since_.end() ? Clock::now() : before->second;
    if (names) left.push_back({step.id, *names, std::chrono::duration<double>(Clock::now() - since).count()});
  }
  left_since_ = std::move(left_since);
  if (!known) return false;
  const std::string reason = std::exchange(room_, slurm_room(parse_slurm_nodes(nodes), left, slurmd_timeout_s_)).reason;
  if (!room_.reason.empty() && room_.reason != reason) log_warning("Slurm job " + options_.allocation + ": " + room_.reason);
  return !room_.wait;
}

std::optional<Capacity> SlurmStep::capacity(int configured) {
  if (const auto config = shown("config", "", kConfigAge)) slurmd_timeout_s_ = parse_slurmd_timeout(*config).value_or(slurmd_timeout_s_);
  const std::optional<std::string> steps = shown("step", options_.allocation, kFreshStepAge);
  const std::optional<std::string> job = shown("job", options_.allocation, kNodesAge);
  if (!job) return std::nullopt;
  const std::optional<SlurmJob> allocation = parse_slurm_job(*job);
  if (!allocation || has_ended(*allocation) || allocation->nodes.empty()) return Capacity{0, false};
  const std::optional<std::string> nodes = shown("node", allocation->nodes, kNodesAge);
  if (!nodes || !steps || !look_around(*nodes, *steps)) return std::nullopt;
  int slots = static_cast<int>(room_.nodes.size()) * options_.ranks_per_node;
  if (configured > 0) slots = std::min(slots, configured);
  return Capacity{slots, false};
}

}  // namespace onestep
