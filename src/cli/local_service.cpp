#include "cli/local_service.h"

#include <filesystem>

#include "cli/local_program.h"

namespace onestep {
namespace {

// A program's arguments: options that say nothing are left out.
class Arguments {
 public:
  explicit Arguments(const std::vector<std::string>& words) {
    arguments_.push_back(sibling_program("onestep-coordinator"));
    arguments_.insert(arguments_.end(), words.begin(), words.end());
  }
  void option(const char* name, const std::string& value) {
    if (!value.empty()) arguments_.push_back(std::string(name) + "=" + value);
  }
  void number(const char* name, std::int64_t value) {
    if (value > 0) option(name, std::to_string(value));
  }
  void path(const char* name, const std::string& value) {
    if (!value.empty()) option(name, absolute_path(value));
  }
  void flag(const char* name, bool given) {
    if (given) arguments_.emplace_back(name);
  }
  void positional(const std::string& value) {
    if (!value.empty()) arguments_.insert(arguments_.end(), {"--", value});
  }
  [[noreturn]] void run() const { become_program(arguments_); }

 private:
  std::vector<std::string> arguments_;
};

}  // namespace

std::string absolute_path(const std::string& path) { return std::filesystem::absolute(path).lexically_normal().string(); }

void start_coordinator(const UpOptions& options) {
  Arguments arguments({});
  arguments.path("--data", options.data);
  arguments.option("--listen", options.listen);
  arguments.number("--slots", options.slots);
  arguments.flag("--stop-workers", options.stop_workers);
  arguments.flag("--resume-stopped", options.resume_stopped);
  arguments.option("--log-format", options.log_format);
  arguments.number("--queue", options.queue);
  arguments.path("--tls", options.tls);
  arguments.option("--auth", options.auth);
  for (const std::string& root : options.roots) arguments.path("--root", root);
  arguments.option("--launcher", options.launcher);
  arguments.path("--hostfile", options.hostfile);
  arguments.option("--telemetry", options.telemetry);
  for (const std::string& option : options.slurm) arguments.option("--slurm", option);
  arguments.number("--ranks-per-node", options.ranks_per_node);
  arguments.run();
}

void start_data_tool(const std::vector<std::string>& words, const DataToolOptions& options, bool json) {
  Arguments arguments(words);
  arguments.path("--data", options.data.empty() ? "onestep-data" : options.data);
  arguments.option("--role", options.role);
  arguments.option("--label", options.label);
  arguments.option("--expires", options.expires);
  arguments.path("--out", options.out);
  arguments.flag("--json", json);
  arguments.positional(options.id);
  arguments.run();
}

}  // namespace onestep
