// Programs that the launchers start: each in a session of its own, with nothing inherited; and what /proc knows of them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/launcher/launcher.h"

namespace onestep {

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int value = -1) : value_(value) {}
  Descriptor(Descriptor&& other) noexcept : value_(other.value_) { other.value_ = -1; }
  Descriptor& operator=(Descriptor&& other) noexcept;
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(); }
  void close();
  [[nodiscard]] int get() const { return value_; }

 private:
  int value_;
};

// Errors: kIo naming the path.
Descriptor open_or_throw(const std::string& path, int flags);
// A file in memory, for what a program prints. Errors: kIo.
Descriptor memory_file();
std::string content_of(const Descriptor& file);

// `name` with a '/' in it as it is, else searched in PATH. Errors: kNotFound.
std::string find_program(const std::string& name);
// The worker program that lies beside the running program.
std::string worker_beside_this_program();

// `source` (KEY=value each) cut down to what workers may see: PATH, HOME, LANG, LC_ALL,
// LD_LIBRARY_PATH, TMPDIR, SLURM_CONF, ONESTEP_* but ONESTEP_TOKEN*, OMPI_MCA_*, OMPI_ALLOW_*.
std::vector<std::string> allowed_environment(const std::vector<std::string>& source);
std::vector<std::string> own_environment();

// What every process of the attempt carries in its environment: ONESTEP_ATTEMPT_ID=<run folder>#<attempt>.
std::string attempt_mark(const LaunchRequest& request);

bool is_alive(const ProcessIdentity& process);
// The leader of a session whose processes carry the mark, running `program` ("": any); nullopt: none is alive.
std::optional<ProcessIdentity> marked_leader(const std::string& mark, const std::string& program = "");

struct ChildProgram {
  std::vector<std::string> arguments;    // the first one a path
  std::vector<std::string> environment;  // KEY=value
  int output = -1;                       // descriptor for standard output
  int errors = -1;                       // for standard error
  bool background = false;               // at low priority
};

// How a program ended, in words: "mpirun ended with status 3".
ProcessEnd describe_end(const std::string& program, int wait_status);

// The children of this process, all of them: it also takes over orphaned ranks, so that none stays a zombie.
class Children {
 public:
  Children();
  Children(const Children&) = delete;
  Children& operator=(const Children&) = delete;

  // Errors: kIo.
  ProcessIdentity start(const ChildProgram& program);
  // The wait status of a child that has ended; nullopt: it runs, or is none.
  std::optional<int> end_of(const ProcessIdentity& process);
  [[nodiscard]] bool knows(const ProcessIdentity& process) const;
  void forget(const ProcessIdentity& process);
  // SIGKILL to all processes that carry the mark; returns how many there were.
  int kill_marked(const std::string& mark);

 private:
  void reap();

  struct Child {
    std::int64_t start_time = 0;
    std::optional<int> end;
  };
  std::map<std::int64_t, Child> children_;  // by pid
};

}  // namespace onestep
