#include "coordinator/launcher/slurm_commands.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <regex>
#include <sstream>

#include "common/error.h"
#include "common/hash.h"
#include "common/log.h"

namespace onestep {
namespace {

using namespace std::chrono_literals;

constexpr auto kPatience = 5s;          // of a question that is waited for
constexpr auto kLongPatience = 60s;     // of one that is not
constexpr auto kForgetAfter = 60s;      // a question that nobody asks any more

// The value of " KEY=" in a line of scontrol, up to the next blank; "(null)" and "None" are nothing.
std::string field(const std::string& line, const std::string& key) {
  const std::string start = " " + key + "=";
  const std::size_t at = (" " + line).find(start);
  if (at == std::string::npos) return "";
  const std::size_t begin = at + start.size() - 1;
  const std::string value = line.substr(begin, line.find_first_of(" \n", begin) - begin);
  return value == "(null)" || value == "None" ? "" : value;
}

}  // namespace

std::vector<std::string> slurm_options(const std::vector<std::string>& given) {
  static constexpr std::array kAllowed = {
      "account",     "comment", "constraint",  "cpus-per-task", "exclude", "gpu-bind", "gpus-per-node", "gpus-per-task", "gres",
      "mem",         "mem-per-cpu", "mem-per-gpu", "mpi",       "nodelist", "partition", "qos",         "reservation",   "signal",
      "time",        "wckey"};
  std::vector<std::string> options;
  for (const std::string& option : given) {
    const std::size_t equals = option.find('=');
    const std::string key = option.substr(0, equals);
    const bool known = std::find(kAllowed.begin(), kAllowed.end(), key) != kAllowed.end();
    if (!known || equals == std::string::npos || equals + 1 == option.size()) {
      std::string all;
      for (const char* name : kAllowed) all += (all.empty() ? "" : ", ") + std::string(name);
      throw Error(ErrorCode::kUsage, "--slurm " + option + ": expected KEY=VALUE with one of " + all);
    }
    options.push_back("--" + option);
  }
  return options;
}

std::string slurm_name(const LaunchRequest& request) {
  return "onestep-" + request.job + "-a" + std::to_string(request.attempt) + "-" + sha256(request.run_folder).substr(0, 8);
}

std::optional<SlurmJob> parse_slurm_job(const std::string& text) {
  SlurmJob job;
  job.state = field(text, "JobState");
  if (job.state.empty()) return std::nullopt;
  job.reason = field(text, "Reason");
  job.nodes = field(text, "NodeList");
  job.exit_code = field(text, "ExitCode");
  return job;
}

bool has_ended(const SlurmJob& job) {
  static constexpr std::array kEnds = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED",
                                       "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"};
  return std::find(kEnds.begin(), kEnds.end(), job.state) != kEnds.end();
}

std::vector<SlurmStepLine> parse_slurm_steps(const std::string& text) {
  std::vector<SlurmStepLine> steps;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (field(line, "State") == "RUNNING") steps.push_back({field(line, "StepId"), field(line, "Name"), field(line, "NodeList")});
  }
  return steps;
}

std::optional<std::string> find_slurm_step(const std::string& text, const std::string& name) {
  for (const SlurmStepLine& step : parse_slurm_steps(text)) {
    if (step.name == name) return step.id;
  }
  return std::nullopt;
}

bool is_attempt_name(const std::string& name) {
  static const std::regex kName("onestep-.+-a[0-9]+-[0-9a-f]{8}");
  return std::regex_match(name, kName);
}

std::vector<SlurmNode> parse_slurm_nodes(const std::string& text) {
  std::vector<SlurmNode> nodes;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const std::string name = field(line, "NodeName"), state = field(line, "State");
    if (name.empty() || state.empty()) continue;
    // A star: the node does not answer.
    const bool lost = state.find('*') != std::string::npos || state.find("DOWN") != std::string::npos ||
                      state.find("FAIL") != std::string::npos || state.find("NOT_RESPONDING") != std::string::npos;
    nodes.push_back({name, !lost});
  }
  return nodes;
}

std::optional<double> parse_slurmd_timeout(const std::string& text) {
  std::smatch found;
  static const std::regex kLine("SlurmdTimeout\\s*=\\s*([0-9]{1,9}) sec");
  if (!std::regex_search(text, found, kLine)) return std::nullopt;
  return std::stod(found[1]);
}

std::string comma_separated(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ",") + word;
  return text;
}

bool is_unreachable(const SlurmAnswer& answer) {
  static constexpr std::array kSigns = {"Unable to contact slurm controller", "Connection refused", "timed out", "Zero Bytes",
                                        "Unexpected message", "in standby mode"};
  return answer.exit_status != 0 && std::any_of(kSigns.begin(), kSigns.end(), [&](const char* sign) {
           return answer.errors.find(sign) != std::string::npos;
         });
}

SlurmCommands::Running SlurmCommands::start(const std::vector<std::string>& command) {
  Running running{{}, memory_file(), memory_file(), Clock::now()};
  ChildProgram program{command, allowed_environment(own_environment())};
  program.arguments[0] = find_program(command.at(0));
  program.output = running.output.get();
  program.errors = running.errors.get();
  running.process = children_->start(program);
  return running;
}

std::optional<SlurmAnswer> SlurmCommands::finished(const Running& running) {
  const std::optional<int> status = children_->end_of(running.process);
  if (!status) return std::nullopt;
  children_->forget(running.process);
  return SlurmAnswer{WIFEXITED(*status) ? WEXITSTATUS(*status) : 128 + WTERMSIG(*status), content_of(running.output),
                     content_of(running.errors)};
}

void SlurmCommands::give_up(const Running& running) {
  ::kill(static_cast<pid_t>(running.process.pid), SIGKILL);
  children_->forget(running.process);
}

SlurmAnswer SlurmCommands::ask(const std::vector<std::string>& command) {
  const Running running = start(command);
  while (true) {
    if (std::optional<SlurmAnswer> answer = finished(running)) return *answer;
    if (Clock::now() - running.started > kPatience) break;
    ::usleep(5000);
  }
  give_up(running);
  throw Error(ErrorCode::kUnavailable, command.at(0) + ": no answer from Slurm in 5 s");
}

std::optional<SlurmAnswer> SlurmCommands::recent(const std::vector<std::string>& command,
                                                 std::chrono::milliseconds max_age) {
  const Clock::time_point now = Clock::now();
  std::erase_if(questions_, [&](const auto& entry) {
    return entry.first != command && !entry.second.running && now - entry.second.asked > kForgetAfter;
  });
  Question& question = questions_[command];
  question.asked = now;
  if (question.running) {
    if (std::optional<SlurmAnswer> answer = finished(*question.running)) {
      question.answer = std::move(answer);
      question.answered = now;
      question.running.reset();
    } else if (now - question.running->started > kLongPatience) {
      log_warning(command.at(0) + ": no answer from Slurm for a minute; asking again");
      give_up(*question.running);
      question.running.reset();
    }
  }
  if (question.answer && now - question.answered <= max_age) return question.answer;
  if (!question.running) question.running = start(command);
  return std::nullopt;
}

}  // namespace onestep
