#include "cli/local_program.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "common/error.h"

namespace onestep {
namespace {

Error system_failure(const std::string& call, const std::string& what) {
  return Error(ErrorCode::kIo, call + " " + what + ": " + std::strerror(errno));
}

std::vector<char*> c_arguments(const std::vector<std::string>& arguments) {
  std::vector<char*> pointers;
  for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

std::string sibling_program(const std::string& name) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) throw Error(ErrorCode::kIo, "readlink /proc/self/exe: " + error.message());
  const std::string path = (self.parent_path() / name).string();
  if (::access(path.c_str(), X_OK) != 0) {
    throw Error(ErrorCode::kNotFound, path + ": " + std::strerror(errno) + "; expected " + name +
                                          " beside the onestep program");
  }
  return path;
}

void become_program(const std::vector<std::string>& arguments) {
  const std::vector<char*> pointers = c_arguments(arguments);
  ::execv(pointers[0], pointers.data());
  throw system_failure("execv", arguments[0]);
}

ProgramResult run_program(const std::vector<std::string>& arguments) {
  const std::vector<char*> pointers = c_arguments(arguments);
  int pipe_ends[2];
  if (::pipe2(pipe_ends, O_CLOEXEC) != 0) throw system_failure("pipe2", "for " + arguments[0]);
  const pid_t child = ::fork();
  if (child < 0) throw system_failure("fork", "for " + arguments[0]);
  if (child == 0) {
    const int nothing = ::open("/dev/null", O_RDONLY);
    if (nothing >= 0) ::dup2(nothing, STDIN_FILENO);
    ::dup2(pipe_ends[1], STDOUT_FILENO);
    ::execv(pointers[0], pointers.data());
    ::_exit(127);
  }
  ::close(pipe_ends[1]);
  ProgramResult result;
  char buffer[4096];
  while (true) {
    const ssize_t count = ::read(pipe_ends[0], buffer, sizeof buffer);
    if (count > 0) result.output.append(buffer, static_cast<std::size_t>(count));
    if (count == 0 || (count < 0 && errno != EINTR)) break;
  }
  ::close(pipe_ends[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) throw system_failure("waitpid", arguments[0]);
  }
  result.exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

ScratchFolder::ScratchFolder() {
  const char* base = std::getenv("TMPDIR");
  path_ = std::string(base && *base ? base : "/tmp") + "/onestep-XXXXXX";
  if (!::mkdtemp(path_.data())) throw system_failure("mkdtemp", path_);
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace onestep
