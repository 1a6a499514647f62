#include "coordinator/launcher/child_launcher.h"

#include <fcntl.h>
#include <signal.h>

#include <filesystem>

#include "common/error.h"
#include "common/run_folder.h"

namespace onestep {

std::vector<std::string> ChildLauncher::worker_command(const LaunchRequest& request) const {
  return {worker_,
          job_file(request.run_folder),
          "--job-id",
          request.job,
          "--attempt",
          std::to_string(request.attempt),
          "--coordinator",
          request.coordinator_file};
}

std::vector<std::string> ChildLauncher::environment(const LaunchRequest&) const {
  std::vector<std::string> environment = allowed_environment(own_environment());
  environment.emplace_back("OMP_NUM_THREADS=1");
  return environment;
}

ProcessIdentity ChildLauncher::launch(const LaunchRequest& request) {
  ChildProgram program{command(request), environment(request)};
  program.arguments[0] = find_program(program.arguments[0]);
  find_program(worker_);
  program.environment.push_back(attempt_mark(request));
  const Descriptor log =
      open_or_throw(mpirun_log_file(request.run_folder, request.attempt), O_WRONLY | O_CREAT | O_APPEND);
  program.output = program.errors = log.get();
  program.background = request.background;
  return children_.start(program);
}

std::optional<ProcessEnd> ChildLauncher::poll(const ProcessIdentity& process) {
  const std::string program = std::filesystem::path(command({}).at(0)).filename().string();
  const std::optional<int> status = children_.end_of(process);
  if (status) return describe_end(program, *status);
  if (children_.knows(process) || is_alive(process)) return std::nullopt;
  return ProcessEnd{false, program + " ended while no coordinator watched it, so its exit status is unknown"};
}

std::optional<ProcessIdentity> ChildLauncher::find(const LaunchRequest& request) {
  // The session's leader is the launching program; the ranks only share its mark.
  return marked_leader(attempt_mark(request));
}

void ChildLauncher::terminate(const ProcessIdentity& process) {
  if (!children_.end_of(process) && is_alive(process)) ::kill(static_cast<pid_t>(process.pid), SIGTERM);
}

int ChildLauncher::kill_all(const LaunchRequest& request) { return children_.kill_marked(attempt_mark(request)); }

}  // namespace onestep
