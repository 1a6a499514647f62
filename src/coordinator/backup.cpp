#include "coordinator/backup.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"
#include "coordinator/beneath.h"
#include "coordinator/store.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMaxSmallFile = 64 << 20;
constexpr std::int64_t kJobsAtATime = 1000;

// Paths below the run folder of what says what a job was and made.
std::vector<std::string> small_files(const std::string& run) {
  std::vector<std::string> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(run, ignored)) {
    const std::string name = entry.path().filename().string();
    const bool outcome = name.starts_with("outcome") && name.ends_with(".json");
    if (outcome || name == "job.json" || name == "manifest.json" || name == "config.json" || name == "SHA256SUMS") found.push_back(name);
  }
  for (const auto& entry : fs::directory_iterator(run + "/checkpoints", ignored)) {
    found.push_back("checkpoints/" + entry.path().filename().string() + "/manifest.json");
  }
  std::sort(found.begin(), found.end());
  return found;
}

// What a running job removes or adds meanwhile is not in the backup, or in it: either is a state that it was in.
std::int64_t copy_job(const std::string& run, const std::string& name, const std::string& out, std::string& sums) {
  std::int64_t count = 0;
  for (const std::string& relative : small_files(run)) {
    const std::optional<OpenFile> file = open_beneath(run, relative);
    if (!file || file->size() > kMaxSmallFile) continue;
    const std::string bytes = file->read_at(0, file->size());
    const std::string target = "jobs/" + name + "/" + relative;
    create_folders_durably(fs::path(out + "/" + target).parent_path().string());
    write_file_durably(out + "/" + target, bytes);
    sums += sha256(bytes) + "  " + target + "\n";
    ++count;
  }
  return count;
}

}  // namespace

BackupSummary back_up(const std::string& data, const std::string& out) {
  const std::string database = data + "/coordinator.sqlite";
  if (!file_exists(database)) throw Error(ErrorCode::kNotFound, database + ": expected the database of a coordinator, found none");
  if (Store::schema_version(database) != Store::kSchemaVersion) {
    throw Error(ErrorCode::kConflict, database + ": schema version; expected " + std::to_string(Store::kSchemaVersion) + ", found " +
                                          std::to_string(Store::schema_version(database)) +
                                          "; back it up with the version that used it last");
  }
  if (fs::exists(out)) throw Error(ErrorCode::kConflict, out + ": expected a folder that is not there yet, found one");
  create_folders_durably(out);
  Store(database).copy_to(out + "/coordinator.sqlite");
  BackupSummary summary;
  summary.folder = out;
  std::string sums;
  {
    Store copy(out + "/coordinator.sqlite");
    JobFilter page;
    page.limit = kJobsAtATime;
    for (std::vector<JobRecord> jobs = copy.jobs(page); !jobs.empty(); jobs = copy.jobs(page)) {
      for (const JobRecord& job : jobs) {
        const std::string chosen = job.spec.value("output", "");
        summary.num_files += copy_job(chosen.empty() ? data + "/jobs/" + job.id : chosen, job.id, out, sums);
        ++summary.num_jobs;
      }
      page.after = jobs.back().number;
    }
  }
  // Opened, it may have been written to.
  sums += sha256_file(out + "/coordinator.sqlite") + "  coordinator.sqlite\n";
  write_file_durably(out + "/SHA256SUMS", sums);
  summary.digest = sha256(sums);
  ++summary.num_files;
  return summary;
}

}  // namespace onestep
