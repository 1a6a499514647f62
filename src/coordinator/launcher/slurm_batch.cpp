#include "coordinator/launcher/slurm_batch.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/log.h"
#include "common/run_folder.h"

namespace onestep {
namespace {

using namespace std::chrono_literals;

constexpr auto kJobAge = 2s;       // of what is known of a job
constexpr int kManySlots = 65536;  // Slurm decides how many run

// The words behind it are sbatch's: nothing is quoted, nothing is read by a shell twice. PMIx, no second try of a rank.
constexpr const char* kScript =
    "#!/bin/sh\n"
    "exec srun --mpi=pmix --distribution=block --cpu-bind=none --kill-on-bad-exit=1 --wait=60 --input=none \"$@\"\n";

// The files of an attempt, which `place` names.
std::string place_of(const LaunchRequest& request) { return request.run_folder + "#" + std::to_string(request.attempt); }
std::string run_of(const std::string& place) { return place.substr(0, place.rfind('#')); }
int attempt_of(const std::string& place) { return std::stoi(place.substr(place.rfind('#') + 1)); }
std::string number_file(const std::string& place) {
  return run_of(place) + "/logs/a" + std::to_string(attempt_of(place)) + "-slurm-job";
}
std::string log_of(const std::string& place) { return mpirun_log_file(run_of(place), attempt_of(place)); }

// What `sbatch --parsable` printed: "17" or "17;cluster". "": nothing yet.
std::string job_number(const std::string& place) {
  if (!file_exists(number_file(place))) return "";
  const std::string text = read_file(number_file(place));
  const std::size_t end = text.find_first_not_of("0123456789");
  return end == std::string::npos ? "" : text.substr(0, end);  // its line is whole
}

// Slurm's own words about why it does not take a job.
std::string last_line(const std::string& path) {
  if (!file_exists(path)) return "";
  const std::string text = read_file(path);
  const std::size_t end = text.find_last_not_of('\n');
  if (end == std::string::npos) return "";
  const std::size_t newline = text.rfind('\n', end);
  return text.substr(newline == std::string::npos ? 0 : newline + 1, end - (newline == std::string::npos ? -1 : newline));
}

// sbatch replaces %x in the names of files.
std::string without_patterns(const std::string& path) {
  std::string escaped;
  for (const char c : path) escaped += c == '%' ? "%%" : std::string(1, c);
  return escaped;
}

}  // namespace

SlurmBatch::SlurmBatch(SlurmBatchOptions options)
    : options_(std::move(options)), slurm_options_(slurm_options(options_.slurm)), slurm_(children_) {}

std::vector<std::string> SlurmBatch::command(const LaunchRequest& request) const {
  std::vector<std::string> command = {options_.programs.sbatch,
                                      "--parsable",
                                      "--job-name=" + slurm_name(request),
                                      "--ntasks=" + std::to_string(request.ranks),
                                      "--no-requeue",
                                      "--signal=USR1@120",
                                      "--chdir=" + request.run_folder,
                                      "--output=" + without_patterns(mpirun_log_file(request.run_folder, request.attempt)),
                                      "--open-mode=append"};
  if (options_.ranks_per_node > 0) {
    const int nodes = (request.ranks + options_.ranks_per_node - 1) / options_.ranks_per_node;
    command.push_back("--nodes=" + std::to_string(nodes));
  }
  command.insert(command.end(), slurm_options_.begin(), slurm_options_.end());
  command.insert(command.end(), {request.run_folder + "/logs/a" + std::to_string(request.attempt) + ".sbatch", options_.worker,
                                 job_file(request.run_folder), "--job-id", request.job, "--attempt",
                                 std::to_string(request.attempt), "--coordinator", request.coordinator_file});
  return command;
}

ProcessIdentity SlurmBatch::launch(const LaunchRequest& request) {
  const std::string place = place_of(request);
  ChildProgram program{command(request), allowed_environment(own_environment())};
  program.arguments[0] = find_program(program.arguments[0]);
  find_program(options_.worker);
  program.environment.push_back(attempt_mark(request));
  program.environment.emplace_back("OMP_NUM_THREADS=1");
  write_file_durably(request.run_folder + "/logs/a" + std::to_string(request.attempt) + ".sbatch", kScript);
  const Descriptor number = open_or_throw(number_file(place), O_WRONLY | O_CREAT | O_TRUNC);
  const Descriptor log = open_or_throw(log_of(place), O_WRONLY | O_CREAT | O_APPEND);
  program.output = number.get();
  program.errors = log.get();
  ProcessIdentity process = children_.start(program);
  process.place = place;
  return process;
}

std::optional<ProcessEnd> SlurmBatch::poll(const ProcessIdentity& process) {
  const std::string number = job_number(process.place);
  if (number.empty()) {
    const std::optional<int> status = children_.end_of(process);
    if (!status && (children_.knows(process) || is_alive(process))) return std::nullopt;
    const std::string said = last_line(log_of(process.place));
    ProcessEnd end = status ? describe_end("sbatch", *status) : ProcessEnd{false, "sbatch ended unwatched, without a job"};
    end.clean = false;
    // What Slurm says no to, it says no to again; a controller that is away comes back.
    end.refused = status && *status != 0 && !is_unreachable({1, "", said});
    if (!said.empty()) end.description += ": " + said;
    return end;
  }
  const std::optional<SlurmAnswer> answer =
      slurm_.recent({options_.programs.scontrol, "--oneliner", "show", "job", number}, kJobAge);
  if (!answer || is_unreachable(*answer)) return std::nullopt;
  const std::optional<SlurmJob> job = parse_slurm_job(answer->output);
  if (!job) {
    if (answer->errors.find("Invalid job id") == std::string::npos) return std::nullopt;
    return ProcessEnd{false, "Slurm no longer knows job " + number};
  }
  known_[process.place] = *job;
  if (!has_ended(*job)) return std::nullopt;
  ProcessEnd end{job->state == "COMPLETED", "Slurm job " + number + " ended as " + job->state};
  end.machine_fault = job->state == "NODE_FAIL" || job->state == "PREEMPTED" || job->state == "BOOT_FAIL";
  if (!job->reason.empty() && !end.clean) end.description += " (" + job->reason + ", exit code " + job->exit_code + ")";
  return end;
}

std::optional<ProcessIdentity> SlurmBatch::find(const LaunchRequest& request) {
  const std::string place = place_of(request);
  if (!job_number(place).empty()) return ProcessIdentity{0, 0, place};
  std::optional<ProcessIdentity> sbatch = marked_leader(attempt_mark(request), "sbatch");
  if (sbatch) sbatch->place = place;
  return sbatch;
}

bool SlurmBatch::cancel(const std::string& number, const std::vector<std::string>& options) {
  std::vector<std::string> command = {options_.programs.scancel};
  command.insert(command.end(), options.begin(), options.end());
  command.push_back(number);
  try {
    const SlurmAnswer answer = slurm_.ask(command);
    if (answer.exit_status == 0) return true;
    log_warning("scancel " + number + ": " + answer.errors);
  } catch (const Error& error) {
    log_warning("scancel " + number + ": " + error.what());
  }
  return false;
}

void SlurmBatch::terminate(const ProcessIdentity& process) {
  const std::string number = job_number(process.place);
  if (number.empty()) return;
  cancel(number, is_pending(process) ? std::vector<std::string>{} : std::vector<std::string>{"--signal=TERM"});
}

bool SlurmBatch::is_pending(const ProcessIdentity& process) {
  const auto known = known_.find(process.place);
  return known != known_.end() && known->second.state == "PENDING";
}

int SlurmBatch::kill_all(const LaunchRequest& request) {
  int killed = children_.kill_marked(attempt_mark(request));
  const std::string place = place_of(request);
  const std::string number = job_number(place);
  const auto known = known_.find(place);
  const bool over = known != known_.end() && has_ended(known->second);
  if (over) known_.erase(known);
  if (!number.empty() && !over && cancel(number, {})) ++killed;
  return killed;
}

std::optional<Capacity> SlurmBatch::capacity(int configured) {
  return Capacity{configured > 0 ? configured : kManySlots, false};
}

std::string SlurmBatch::whereabouts(const ProcessIdentity& process) {
  const std::string number = job_number(process.place);
  const auto known = known_.find(process.place);
  if (number.empty() || known == known_.end()) return "";
  const SlurmJob& job = known->second;
  return "Slurm job " + number + " is " + job.state + (job.reason.empty() ? "" : " (" + job.reason + ")") +
         (job.nodes.empty() ? "" : " on " + job.nodes);
}

}  // namespace onestep
