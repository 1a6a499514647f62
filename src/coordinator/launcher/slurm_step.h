// Launches attempts as steps of the Slurm allocation that the coordinator runs in.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/launcher/child_launcher.h"
#include "coordinator/launcher/slurm_room.h"

namespace onestep {

struct SlurmStepOptions {
  std::string worker;      // absolute path of onestep-worker, the same on all nodes
  std::string allocation;  // SLURM_JOB_ID
  int ranks_per_node = 1;
  std::vector<std::string> slurm;  // "gpus-per-task=1": see slurm_options
  SlurmPrograms programs = {};
};

// A step is known by its name, which holds the attempt's number: step numbers begin anew when a job is requeued. Jobs get
// processors and GPUs of their own (--exact); evaluations in the background share those of the others (--overlap). Where Slurm still counts
// steps of attempts that have ended (slurm_room.h), jobs are given nodes and GPUs by this launcher. One coordinator an allocation.
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
  // The nodes that the allocation still has, that answer and that no ended attempt's step keeps, times ranks_per_node.
  std::optional<Capacity> capacity(int configured) override;
  [[nodiscard]] bool capacity_varies() const override { return true; }
  [[nodiscard]] double unnoticed_loss_s() const override { return slurmd_timeout_s_; }
  [[nodiscard]] std::vector<std::string> command(const LaunchRequest& request) const override;

 protected:
  [[nodiscard]] std::vector<std::string> environment(const LaunchRequest& request) const override;

 private:
  using Clock = std::chrono::steady_clock;
  struct Attempt {
    bool background = false;
    std::optional<SlurmPlace> place = {};  // nullopt: Slurm chose
  };

  // What scontrol shows of one thing of the allocation; nullopt: not known now.
  std::optional<std::string> shown(const char* what, const std::string& name, std::chrono::milliseconds max_age);
  std::optional<std::vector<std::string>> names_of(const std::string& nodes);
  // Notes what there is room for. false: not known now.
  bool look_around(const std::string& nodes, const std::string& steps);
  UsedSlots used_slots() const;
  // "17.3"; nullopt: no such step runs, or Slurm does not say.
  std::optional<std::string> step_of(const std::string& name);
  void signal_step(const std::string& name, const char* signal);

  SlurmStepOptions options_;
  std::vector<std::string> slurm_options_;
  SlurmCommands slurm_;
  double slurmd_timeout_s_ = 300;                             // until Slurm says
  std::map<std::string, Attempt> attempts_;                   // that have not ended, by name
  std::map<std::string, Clock::time_point> left_since_;       // steps whose attempts have ended, by name
  std::map<std::string, std::vector<std::string>> nodes_of_;  // of steps that run, by name
  SlurmRoom room_;
};

}  // namespace onestep
