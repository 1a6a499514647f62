// Slurm's own commands: asked without waiting where that is possible, and what they print.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/launcher/children.h"

namespace onestep {

struct SlurmPrograms {
  std::string srun = "srun";  // each searched in PATH
  std::string sbatch = "sbatch";
  std::string scontrol = "scontrol";
  std::string scancel = "scancel";
};

// "partition=gpu" -> "--partition=gpu". Errors: kUsage for what is not one of the options that an operator may give.
std::vector<std::string> slurm_options(const std::vector<std::string>& given);

// The name of an attempt's job or step: "onestep-distill-4-a3-1f2e3d4c", the last part of its run folder.
std::string slurm_name(const LaunchRequest& request);

// A line of `scontrol --oneliner show job`.
struct SlurmJob {
  std::string state;   // "RUNNING"
  std::string reason;  // "Resources"; "": none
  std::string nodes;   // "n[1-4]"; "": none yet
  std::string exit_code;
};
// nullopt: the text is none.
std::optional<SlurmJob> parse_slurm_job(const std::string& text);
// It will not run again under this number.
bool has_ended(const SlurmJob& job);

// A line of `scontrol --oneliner show step`.
struct SlurmStepLine {
  std::string id;    // "17.3"
  std::string name;  // slurm_name()
  std::string nodes;
};
// Those that run, by Slurm's account.
std::vector<SlurmStepLine> parse_slurm_steps(const std::string& text);
// "17.3" of the step of that name; nullopt: none that runs.
std::optional<std::string> find_slurm_step(const std::string& text, const std::string& name);
// Whether slurm_name() makes such names.
bool is_attempt_name(const std::string& name);

// A line of `scontrol --oneliner show node`.
struct SlurmNode {
  std::string name;
  bool usable = true;  // it answers, and is not given up
};
std::vector<SlurmNode> parse_slurm_nodes(const std::string& text);
// SlurmdTimeout of `scontrol show config`, s: after how long Slurm misses a node. nullopt: not in it.
std::optional<double> parse_slurmd_timeout(const std::string& text);

// "n1,n2", as options take it.
std::string comma_separated(const std::vector<std::string>& words);

struct SlurmAnswer {
  int exit_status = 0;  // 128 + signal for a killed command
  std::string output;
  std::string errors;
};
// The controller did not answer: what was asked may be so or not.
bool is_unreachable(const SlurmAnswer& answer);

// One thread. `children` outlives it.
class SlurmCommands {
 public:
  explicit SlurmCommands(Children& children) : children_(&children) {}

  // Waits up to 5 s. Errors: kNotFound when the program is missing; kUnavailable when it does not end in time.
  SlurmAnswer ask(const std::vector<std::string>& command);
  // Never waits: an answer that is at most so old, or nullopt, while the question is being asked.
  std::optional<SlurmAnswer> recent(const std::vector<std::string>& command, std::chrono::milliseconds max_age);

 private:
  using Clock = std::chrono::steady_clock;
  struct Running {
    ProcessIdentity process;
    Descriptor output, errors;
    Clock::time_point started;
  };
  struct Question {
    std::optional<Running> running;
    std::optional<SlurmAnswer> answer;
    Clock::time_point answered, asked;
  };
  Running start(const std::vector<std::string>& command);
  std::optional<SlurmAnswer> finished(const Running& running);
  void give_up(const Running& running);

  Children* children_;
  std::map<std::vector<std::string>, Question> questions_;
};

}  // namespace onestep
