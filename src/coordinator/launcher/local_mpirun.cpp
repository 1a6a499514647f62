#include "coordinator/launcher/local_mpirun.h"

namespace onestep {

LocalMpirun::LocalMpirun(LocalMpirunOptions options)
    : ChildLauncher(options.worker), options_(std::move(options)) {}

std::vector<std::string> LocalMpirun::command(const LaunchRequest& request) const {
  std::vector<std::string> command = {options_.mpirun, "--allow-run-as-root", "--oversubscribe",
                                      "--bind-to",     "none",                "-n",
                                      std::to_string(request.ranks)};
  for (std::string& word : worker_command(request)) command.push_back(std::move(word));
  return command;
}

std::vector<std::string> LocalMpirun::environment(const LaunchRequest& request) const {
  std::vector<std::string> environment = ChildLauncher::environment(request);
  if (request.ranks > options_.cores) environment.emplace_back("OMPI_MCA_mpi_yield_when_idle=1");
  return environment;
}

}  // namespace onestep
