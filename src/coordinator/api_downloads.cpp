// Files over REST: a checkpoint's, an export's, pictures. They are named by what the database and their manifests list,
// never by a path.
#include <sstream>

#include "common/error.h"
#include "common/hash.h"
#include "common/run_folder.h"
#include "coordinator/api_call.h"
#include "coordinator/file_response.h"
#include "coordinator/job_view.h"
#include "coordinator/samples.h"

namespace onestep {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kMaxListBytes = 16 << 20;     // of a manifest or a list of digests
constexpr std::int64_t kMaxPictureBytes = 64 << 20;

struct ListedFile {
  std::string name;
  std::string sha256;
  std::string path;  // beneath the run folder
};

// A name that leads down from its folder: a list is what the job wrote, and what is beside the folder is not its to give.
bool leads_down(const std::string& name) {
  const std::string between = "/" + name + "/";
  return !name.empty() && name.front() != '/' && between.find("/../") == std::string::npos && between.find("/./") == std::string::npos;
}

void require_size(const std::string& name, const OpenFile& file, std::int64_t limit) {
  if (file.size() <= limit) return;
  throw Error(ErrorCode::kConflict, name + ": expected at most " + std::to_string(limit) + " bytes, found " + std::to_string(file.size()));
}

// All of a list; "" when it is not there.
std::string read_list(const std::string& run, const std::string& relative) {
  const std::optional<OpenFile> file = open_beneath(run, relative);
  if (!file) return "";
  require_size(run + "/" + relative, *file, kMaxListBytes);
  return file->read_at(0, file->size());
}

std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

CheckpointRecord find_checkpoint(Coordinator& coordinator, const std::string& job, const std::string& name) {
  for (const CheckpointRecord& checkpoint : coordinator.checkpoints(job)) {
    if (base_name(checkpoint.folder) == name) return checkpoint;
  }
  throw Error(ErrorCode::kNotFound, "checkpoints of " + job + ": expected the name of a committed one, found \"" + name + "\"");
}

// As its manifest lists them; the manifest itself is named by the checkpoint's digest.
std::vector<ListedFile> files_of(const std::string& run, const CheckpointRecord& checkpoint) {
  const std::string folder = "checkpoints/" + base_name(checkpoint.folder) + "/";
  const std::string text = read_list(run, folder + "manifest.json");
  if (text.empty()) {
    throw Error(ErrorCode::kNotFound, checkpoint.folder + ": the checkpoint was removed, since newer ones are there");
  }
  std::vector<ListedFile> files = {{"manifest.json", sha256(text), folder + "manifest.json"}};
  const nlohmann::json manifest = nlohmann::json::parse(text, nullptr, false);
  const auto listed = manifest.is_object() ? manifest.find("files") : manifest.end();
  if (!manifest.is_object() || listed == manifest.end() || !listed->is_array()) {
    throw Error(ErrorCode::kCorrupt, checkpoint.folder + "/manifest.json: expected a list of files, found none");
  }
  for (const nlohmann::json& file : *listed) {
    if (!file.is_object()) continue;
    const std::string name = file.value("name", "");
    if (leads_down(name)) files.push_back({name, file.value("sha256", ""), folder + name});
  }
  return files;
}

// Of SHA256SUMS.
std::vector<ListedFile> files_of_export(Coordinator& coordinator, const JobRecord& job) {
  if (job.kind != "export" || job.state != JobState::kSucceeded) {
    throw Error(ErrorCode::kConflict, job.id + ": expected an export job that has succeeded, found one of kind " + job.kind +
                                          " that is " + to_string(job.state));
  }
  std::istringstream lines(read_list(coordinator.run_folder(job.id), "SHA256SUMS"));
  std::vector<ListedFile> files;
  for (std::string digest, name; lines >> digest >> name;) {
    if (leads_down(name)) files.push_back({name, digest, name});
  }
  return files;
}

Json view(const std::string& run, const std::vector<ListedFile>& files, const std::string& url) {
  Json list = Json::array();
  for (const ListedFile& file : files) {
    const std::optional<OpenFile> opened = open_beneath(run, file.path);
    if (!opened) continue;  // removed at this moment
    list.push_back({{"name", file.name}, {"bytes", opened->size()}, {"sha256", file.sha256}, {"url", url + percent_encode(file.name)}});
  }
  return list;
}

HttpResponse download(const HttpRequest& request, const std::string& run, const std::vector<ListedFile>& files,
                      const std::string& name) {
  for (const ListedFile& file : files) {
    if (file.name != name) continue;
    std::optional<OpenFile> opened = open_beneath(run, file.path);
    if (opened) return file_response(request, "application/octet-stream", file.sha256, std::move(*opened));
  }
  throw Error(ErrorCode::kNotFound, run + ": expected the name of a listed file, found \"" + name + "\"");
}

}  // namespace

HttpResponse Api::show_checkpoint(Call& call) {
  const JobRecord job = coordinator_.job(call.id());
  const CheckpointRecord checkpoint = find_checkpoint(coordinator_, job.id, call.segments.at(1));
  const std::string run = coordinator_.run_folder(job.id);
  Json body = checkpoint_view(checkpoint);
  body["files"] = view(run, files_of(run, checkpoint),
                       "/api/v1/jobs/" + job.id + "/checkpoints/" + call.segments.at(1) + "/files/");
  return api::json_response(200, body);
}

HttpResponse Api::download_checkpoint_file(Call& call) {
  const JobRecord job = coordinator_.job(call.id());
  const CheckpointRecord checkpoint = find_checkpoint(coordinator_, job.id, call.segments.at(1));
  const std::string run = coordinator_.run_folder(job.id);
  return download(call.request, run, files_of(run, checkpoint), call.segments.at(2));
}

HttpResponse Api::show_export(Call& call) {
  const JobRecord job = coordinator_.job(call.id());
  const std::vector<ListedFile> files = files_of_export(coordinator_, job);
  return api::json_response(200, {{"items", view(coordinator_.run_folder(job.id), files, "/api/v1/jobs/" + job.id + "/export/")}});
}

HttpResponse Api::download_export_file(Call& call) {
  const JobRecord job = coordinator_.job(call.id());
  return download(call.request, coordinator_.run_folder(job.id), files_of_export(coordinator_, job), call.segments.at(1));
}

HttpResponse Api::show_sample(Call& call) {
  const std::string& file = call.segments.at(1);
  for (const SampleRecord& sample : samples_of(coordinator_, call.id())) {
    if (file != std::to_string(sample.iteration) + ".png") continue;
    std::optional<OpenFile> opened = open_beneath(coordinator_.run_folder(sample.evaluation), base_name(sample.file));
    if (!opened) break;
    require_size(sample.file, *opened, kMaxPictureBytes);
    const std::string tag = sha256(opened->read_at(0, opened->size())).substr(0, 32);
    return file_response(call.request, "image/png", tag, std::move(*opened));
  }
  throw Error(ErrorCode::kNotFound, "samples of " + call.id() + ": expected ITERATION.png of an evaluated " +
                                        "checkpoint, found \"" + file + "\"");
}

}  // namespace onestep
