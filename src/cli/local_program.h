// The programs that stand beside this one, and running one of them.
#pragma once

#include <string>
#include <vector>

namespace onestep {

// "/opt/onestep/bin/onestep-worker" for "onestep-worker": in the folder of the running program. Errors: kNotFound.
std::string sibling_program(const std::string& name);

// Replaces this process; returns only by throwing kIo.
[[noreturn]] void become_program(const std::vector<std::string>& arguments);

struct ProgramResult {
  int exit_status = 0;     // 128 + signal for a killed one
  std::string output;      // standard output
};

// Runs it to its end with standard input from /dev/null; standard error is passed through. Errors: kIo.
ProgramResult run_program(const std::vector<std::string>& arguments);

// A new folder under $TMPDIR or /tmp, removed with everything in it at the end. Move-only. Errors: kIo.
class ScratchFolder {
 public:
  ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  ~ScratchFolder();
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace onestep
