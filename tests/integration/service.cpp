#include "integration/service.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <thread>

#include "cli/job_commands.h"
#include "cli/local_program.h"
#include "common/checkpoint_manifest.h"
#include "common/run_folder.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;

std::string command_line_of(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/cmdline", std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  std::replace(text.begin(), text.end(), '\0', ' ');
  return text;
}

bool is_zombie(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/stat");
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const std::size_t end = text.rfind(") ");
  return end == std::string::npos || text.substr(end + 2, 1) == "Z";
}

}  // namespace

std::string program(const std::string& name) { return std::string(ONESTEP_PROGRAMS) + "/" + name; }

nlohmann::json ShellResult::last_line() const {
  const std::size_t end = output.find_last_not_of('\n');
  if (end == std::string::npos) throw std::runtime_error("no output; standard error: " + error);
  const std::size_t newline = output.rfind('\n', end);
  const std::string line = output.substr(newline == std::string::npos ? 0 : newline + 1);
  return nlohmann::json::parse(line);
}

ShellResult shell(const std::string& command) {
  const TempFolder folder;
  const std::string script = "unset ONESTEP_URL; export PATH=" + std::string(ONESTEP_PROGRAMS) +
                             ":$PATH OMPI_MCA_mpi_yield_when_idle=1 OMP_NUM_THREADS=1; { " + command + "\n} 2>" +
                             folder / "error";
  const ProgramResult run = run_program({"/bin/bash", "-c", script});
  return {run.exit_status, run.output, slurp(folder / "error")};
}

void wait_until(const std::string& what, double limit_s, const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(limit_s);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) throw std::runtime_error("waited in vain: " + what);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

std::vector<pid_t> processes_with(const std::vector<std::string>& parts) {
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string text = command_line_of(name);
    const bool all = std::all_of(parts.begin(), parts.end(),
                                 [&](const std::string& part) { return text.find(part) != std::string::npos; });
    if (all && !text.empty() && !is_zombie(name) && std::stoi(name) != ::getpid()) found.push_back(std::stoi(name));
  }
  return found;
}

Service::Service(std::string data, ServiceOptions options) : data_(std::move(data)), options_(std::move(options)) { start(); }

Service::~Service() {
  if (pid_ > 0) ::kill(pid_, SIGTERM);
  if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
  for (const pid_t process : processes_with({data_ + "/jobs/"})) ::kill(process, SIGKILL);
}

void Service::start() {
  fs::create_directories(data_);
  const std::string log = data_ + "/../" + fs::path(data_).filename().string() + ".log";
  fs::remove(log);
  pid_ = ::fork();
  if (pid_ == 0) {
    const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ::dup2(out, 1);
    ::dup2(out, 2);
    std::vector<std::string> words = {program("onestep-coordinator"), "--data", data_, "--listen", listen_, "--root", "/"};
    words.insert(words.end(), options_.arguments.begin(), options_.arguments.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  const std::string marker = "listening on ";
  wait_until("coordinator ready", 60, [&] {
    const std::string text = fs::exists(log) ? slurp(log) : "";
    const std::size_t at = text.find(marker);
    if (at == std::string::npos) {
      if (::waitpid(pid_, nullptr, WNOHANG) != 0) throw std::runtime_error("the coordinator ended: " + text);
      return false;
    }
    url_ = text.substr(at + marker.size(), text.find(',', at) - at - marker.size());
    return text.find('\n', at) != std::string::npos;
  });
  client_ = std::make_unique<Client>(parse_server_url(url_));
  listen_ = client_->url().host + ":" + client_->url().port;
}

void Service::kill_hard() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

int Service::stop() {
  int status = 0;
  ::kill(pid_, SIGTERM);
  ::waitpid(pid_, &status, 0);
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::vector<std::string> Service::submit(const nlohmann::json& spec) {
  const nlohmann::json answer = client_->post("/api/v1/jobs", {{"spec", spec}, {"base", data_}});
  std::vector<std::string> ids;
  for (const nlohmann::json& job : answer.at("jobs")) ids.push_back(job.at("id"));
  return ids;
}

nlohmann::json Service::job(const std::string& id) const { return client_->get(job_target(id)); }

std::string Service::state(const std::string& id) const { return job(id).at("state"); }

nlohmann::json Service::wait_for(const std::string& id, const std::vector<std::string>& states, double limit_s) const {
  nlohmann::json found;
  wait_until("job " + id + " reaches " + states.at(0), limit_s, [&] {
    found = job(id);
    const std::string now = found.at("state");
    if (std::find(states.begin(), states.end(), now) != states.end()) return true;
    if (has_ended(now)) throw std::runtime_error("job " + id + " ended as " + found.dump());
    return false;
  });
  return found;
}

std::vector<pid_t> Service::ranks(const std::string& id) const {
  std::vector<pid_t> found = processes_with({"onestep-worker", run_folder(id) + "/job.json"});
  const std::vector<pid_t> launchers = mpiruns(id);
  std::erase_if(found, [&](pid_t pid) {
    return std::find(launchers.begin(), launchers.end(), pid) != launchers.end();
  });
  return found;
}

std::vector<pid_t> Service::mpiruns(const std::string& id) const {
  return processes_with({"mpirun", run_folder(id) + "/job.json"});
}

void Service::wait_for_checkpoint(const std::string& id) const {
  wait_until("a checkpoint of " + id, 300, [&] {
    if (fs::exists(outcome_file(run_folder(id)))) throw std::runtime_error(id + " ended before it could be disturbed");
    return fs::exists(checkpoints_folder(run_folder(id))) && !list_checkpoints(checkpoints_folder(run_folder(id))).empty();
  });
}

}  // namespace onestep
