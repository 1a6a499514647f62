// Programs under test: a coordinator on a folder of its own, workers alone, and what is found in /proc about them.
#pragma once

#include <nlohmann/json.hpp>

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/client.h"

namespace onestep {

std::string program(const std::string& name);  // "<build>/bin/onestep-worker"

struct ShellResult {
  int exit_status = 0;
  std::string output;
  std::string error;
  // The last line of the output as JSON; fails loudly when it is none.
  [[nodiscard]] nlohmann::json last_line() const;
};
// Runs `command` in a shell with the programs' folder first in PATH and ONESTEP_URL unset.
ShellResult shell(const std::string& command);

// Calls `condition` every 20 ms until it holds; throws naming `what` after `limit_s`.
void wait_until(const std::string& what, double limit_s, const std::function<bool()>& condition);

// Processes whose command line contains all of `parts`.
std::vector<pid_t> processes_with(const std::vector<std::string>& parts);

struct ServiceOptions {
  std::vector<std::string> arguments = {};  // beside --data, --listen and --root /
};

// `onestep-coordinator` on `data`, on a free port that it keeps when it is started again. Stops it and whatever it left running at the end.
class Service {
 public:
  explicit Service(std::string data, ServiceOptions options = {});
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;
  ~Service();

  void start();
  void kill_hard();          // SIGKILL; its workers live on
  int stop();                // SIGTERM; returns its exit status

  [[nodiscard]] const std::string& url() const { return url_; }
  [[nodiscard]] const std::string& data() const { return data_; }
  [[nodiscard]] const Client& client() const { return *client_; }

  // Submits one job or pipeline; the ids of its jobs in order.
  std::vector<std::string> submit(const nlohmann::json& spec);
  nlohmann::json job(const std::string& id) const;
  std::string state(const std::string& id) const;
  // Waits for one of `states` and returns the whole job; throws when it ends in another one.
  nlohmann::json wait_for(const std::string& id, const std::vector<std::string>& states, double limit_s = 300) const;
  [[nodiscard]] std::string run_folder(const std::string& id) const { return data_ + "/jobs/" + id; }
  // Ranks of the job's attempt, and its mpirun.
  [[nodiscard]] std::vector<pid_t> ranks(const std::string& id) const;
  [[nodiscard]] std::vector<pid_t> mpiruns(const std::string& id) const;
  // Waits until the job has committed a checkpoint and still runs.
  void wait_for_checkpoint(const std::string& id) const;

 private:
  std::string data_;
  ServiceOptions options_;
  std::string listen_ = "127.0.0.1:0";
  std::string url_;
  std::unique_ptr<Client> client_;
  pid_t pid_ = -1;
};

}  // namespace onestep
