#include "integration/finished_smoke.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>

#include "common/hash.h"
#include "integration/service.h"
#include "support/files.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;

const std::string kFolder = std::string(ONESTEP_BINARY_DIR) + "/integration";
const std::string kPipeline = std::string(ONESTEP_SOURCE_DIR) + "/configs/digits/smoke/pipeline.json";

// One process at a time.
class FolderLock {
 public:
  explicit FolderLock(const std::string& path) : descriptor_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
    if (descriptor_ < 0 || ::flock(descriptor_, LOCK_EX) != 0) throw std::runtime_error("cannot lock " + path);
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  ~FolderLock() { ::close(descriptor_); }

 private:
  int descriptor_;
};

// Changes whenever the programs or the pipeline do.
std::string build_key() {
  std::string text = slurp(kPipeline);
  for (const char* name : {"onestep-worker", "onestep-coordinator"}) {
    struct stat status{};
    if (::stat(program(name).c_str(), &status) != 0) throw std::runtime_error("not built: " + program(name));
    text += std::to_string(status.st_mtim.tv_sec) + "." + std::to_string(status.st_mtim.tv_nsec) + "/";
  }
  return sha256(text).substr(0, 16);
}

nlohmann::json run_pipeline(const std::string& data) {
  const Service service(data);
  const ShellResult run = shell("onestep submit " + kPipeline + " --set distill.ranks=1 --follow --json --url " + service.url());
  if (run.exit_status != 0) throw std::runtime_error("the smoke pipeline failed: " + run.error + run.output);
  return run.last_line();
}

}  // namespace

std::string FinishedSmoke::run_folder(const std::string& job) const {
  for (const auto& entry : fs::directory_iterator(data + "/jobs")) {
    const std::string name = entry.path().filename().string();
    if (name.substr(0, name.rfind('-')) == job) return entry.path().string();
  }
  throw std::runtime_error("no run folder of " + job + " in " + data);
}

std::string FinishedSmoke::digest(const std::string& job) const {
  for (const nlohmann::json& entry : last_line.at("jobs")) {
    if (entry.at("name") == job) return entry.at("digest");
  }
  throw std::runtime_error("no job " + job);
}

FinishedSmoke finished_smoke() {
  fs::create_directories(kFolder);
  const FolderLock lock(kFolder + "/lock");
  const std::string base = kFolder + "/" + build_key();
  const std::string done = base + "/last_line.json";
  if (!fs::exists(done)) {
    for (const auto& entry : fs::directory_iterator(kFolder)) {
      if (entry.is_directory()) fs::remove_all(entry.path());  // of earlier builds, or unfinished
    }
    fs::create_directories(base);
    spit(done + ".new", run_pipeline(base + "/data").dump());
    fs::rename(done + ".new", done);
  }
  return {base + "/data", nlohmann::json::parse(slurp(done))};
}

nlohmann::json long_student(const FinishedSmoke& smoke, int ranks) {
  nlohmann::json spec = nlohmann::json::parse(slurp(smoke.run_folder("distill") + "/job.json"));
  spec.erase("output");
  spec.erase("evaluation");
  spec["ranks"] = ranks;
  spec["dmd"]["iterations"] = 80;
  spec["checkpoint"]["every_iterations"] = 10;
  return spec;
}

std::string long_student_digest(const FinishedSmoke& smoke) {
  const FolderLock lock(kFolder + "/lock");
  const std::string base = fs::path(smoke.data).parent_path().string();
  const std::string done = base + "/long_student_digest";
  if (!fs::exists(done)) {
    spit(base + "/long_student.json", long_student(smoke, 1).dump());
    const ShellResult run = shell("onestep-worker " + base + "/long_student.json --output " + base + "/long_student");
    if (run.exit_status != 0) throw std::runtime_error("the long student failed: " + run.error);
    spit(done + ".new", run.last_line().at("digest").get<std::string>());
    fs::rename(done + ".new", done);
  }
  return slurp(done);
}

std::string source_folder() { return ONESTEP_SOURCE_DIR; }

}  // namespace onestep
