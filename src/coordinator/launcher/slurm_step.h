// Launches attempts as steps of the Slurm allocation that the coordinator runs in.
#pragma once

#include <string>
#include <vector>

#include "coordinator/launcher/child_launcher.h"
#include "coordinator/launcher/slurm_commands.h"

namespace onestep {

struct SlurmStepOptions {
  std::string worker;      // absolute path of onestep-worker, the same on all nodes
  std::string allocation;  // SLURM_JOB_ID
  int ranks_per_node = 1;
  std::vector<std::string> slurm;  // "gpus-per-task=1": see slurm_options
  SlurmPrograms programs = {};
};

// A step is known by its name, which holds the attempt's number: step numbers begin anew when a job is requeued. Jobs get
// processors and GPUs of their own (--exact); evaluations in the background share those of the others (--overlap).
class SlurmStep : public ChildLauncher {
 public:
  // Errors: kUsage for an option.
  explicit SlurmStep(SlurmStepOptions options);

  [[nodiscard]] std::string name() const override { return "slurm-step"; }
  ProcessIdentity launch(const LaunchRequest& request) override;
  std::optional<ProcessEnd> poll(const ProcessIdentity& process) override;
  std::optional<ProcessIdentity> find(const LaunchRequest& request) override;
  void terminate(const ProcessIdentity& process) override;
  int kill_all(const LaunchRequest& request) override;
  // The nodes that the allocation still has and that answer, times ranks_per_node.
  std::optional<Capacity> capacity(int configured) override;
  [[nodiscard]] bool capacity_varies() const override { return true; }
  [[nodiscard]] double unnoticed_loss_s() const override { return 300; }  // Slurm's default SlurmdTimeout
  [[nodiscard]] std::vector<std::string> command(const LaunchRequest& request) const override;

 private:
  // "17.3"; nullopt: no such step runs, or Slurm does not say.
  std::optional<std::string> step_of(const std::string& name);
  void signal_step(const std::string& name, const char* signal);

  SlurmStepOptions options_;
  std::vector<std::string> slurm_options_;
  SlurmCommands slurm_;
};

}  // namespace onestep
