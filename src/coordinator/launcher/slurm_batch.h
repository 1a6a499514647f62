// Launches attempts as Slurm jobs of their own, from a machine where jobs are submitted.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "coordinator/launcher/slurm_commands.h"

namespace onestep {

struct SlurmBatchOptions {
  std::string worker;      // absolute path of onestep-worker, the same on all nodes
  int ranks_per_node = 0;  // 0: as Slurm places them
  std::vector<std::string> slurm;  // "partition=gpu", "time=4:00:00": see slurm_options
  SlurmPrograms programs = {};
};

// sbatch's answer, the job's number, goes to a file of the run folder, where a restarted coordinator finds it. Slurm
// never requeues these jobs: the coordinator submits the next attempt. Two minutes before a time limit the ranks are told to save.
class SlurmBatch : public Launcher {
 public:
  // Errors: kUsage for an option.
  explicit SlurmBatch(SlurmBatchOptions options);

  [[nodiscard]] std::string name() const override { return "slurm-batch"; }
  ProcessIdentity launch(const LaunchRequest& request) override;
  std::optional<ProcessEnd> poll(const ProcessIdentity& process) override;
  std::optional<ProcessIdentity> find(const LaunchRequest& request) override;
  void terminate(const ProcessIdentity& process) override;
  int kill_all(const LaunchRequest& request) override;
  // As many as the operator says; Slurm has the queue.
  std::optional<Capacity> capacity(int configured) override;
  std::string whereabouts(const ProcessIdentity& process) override;
  bool is_pending(const ProcessIdentity& process) override;

  [[nodiscard]] std::vector<std::string> command(const LaunchRequest& request) const;

 private:
  bool cancel(const std::string& number, const std::vector<std::string>& options);

  SlurmBatchOptions options_;
  std::vector<std::string> slurm_options_;
  Children children_;
  SlurmCommands slurm_;
  std::map<std::string, SlurmJob> known_;  // by place: what Slurm said last
};

}  // namespace onestep
