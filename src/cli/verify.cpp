#include "cli/verify.h"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <iostream>
#include <sstream>

#include "cli/text.h"
#include "common/checkpoint_manifest.h"
#include "common/config.h"
#include "common/durable_file.h"
#include "common/embedding_file.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/hdf5_listing.h"
#include "common/image_file.h"
#include "common/job_spec.h"
#include "common/pair_file.h"
#include "common/run_folder.h"
#include "common/safetensors_file.h"
#include "common/sealed_json.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// A JSON file that a program wrote: broken syntax is damage, not a user's mistake.
json read_written_json(const std::string& path) {
  try {
    return read_json_file(path);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kConfig) throw;
    throw Error(ErrorCode::kCorrupt, error.what());
  }
}

std::string text_field(const json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

VerifiedPart verify_safetensors(const std::string& path) {
  const SafetensorsFile file(path);
  return {path, "safetensors file", sha256_file(path), std::to_string(file.tensors().size()) + " tensors"};
}

VerifiedPart verify_checkpoint(const std::string& folder) {
  const CheckpointManifest manifest = read_checkpoint_manifest(folder, /*verify_files=*/true);
  for (const CheckpointFile& file : manifest.files) {
    if (file.name.ends_with(".safetensors")) SafetensorsFile(folder + "/" + file.name);
  }
  return {folder, "checkpoint", checkpoint_digest(folder),
          manifest.kind + ", iteration " + std::to_string(manifest.iteration) + ", " +
              with_thousands(manifest.images) + " images"};
}

void verify_shard(const std::string& folder, const PairSetManifest& manifest, const PairShardRecord& expected) {
  const PairShardRecord found = verify_pair_shard(folder, manifest.info, expected.index);
  const std::string path = folder + "/" + expected.file;
  if (found.bytes != expected.bytes) {
    throw Error(ErrorCode::kCorrupt, path + ": size: expected " + std::to_string(expected.bytes) + " bytes, found " +
                                         std::to_string(found.bytes));
  }
  const std::string digest = sha256_file(path);
  if (digest != expected.sha256) {
    throw Error(ErrorCode::kCorrupt, path + ": sha256: expected " + expected.sha256 + ", found " + digest);
  }
}

VerifiedPart verify_pair_set(const std::string& folder) {
  const PairSetManifest manifest = read_pair_manifest(folder);
  for (const PairShardRecord& shard : manifest.shards) verify_shard(folder, manifest, shard);
  return {folder, "pair set", pair_set_digest(folder),
          with_thousands(manifest.info.count) + " pairs in " + std::to_string(manifest.shards.size()) + " shards"};
}

VerifiedPart verify_images(const std::string& path) {
  const ImageFile file(path);
  const ImageFileInfo& info = file.info();
  return {path, "image dataset", file.verify(),
          with_thousands(info.count) + " images of " + std::to_string(info.channels) + "x" + std::to_string(info.height) + "x" +
              std::to_string(info.width) + ", " +
              (info.num_classes > 0 ? std::to_string(info.num_classes) + " classes" : std::string("no labels"))};
}

// A shard is judged by the manifest beside it; alone it does not say which set it belongs to.
VerifiedPart verify_shard_file(const std::string& path) {
  const fs::path file = fs::path(path);
  const std::string folder = file.parent_path().empty() ? "." : file.parent_path().string();
  if (!file_exists(folder + "/manifest.json")) {
    throw Error(ErrorCode::kNotFound, path + ": expected manifest.json of its pair set beside it, found none");
  }
  const PairSetManifest manifest = read_pair_manifest(folder);
  for (const PairShardRecord& shard : manifest.shards) {
    if (shard.file != file.filename().string()) continue;
    verify_shard(folder, manifest, shard);
    return {path, "pair shard", shard.sha256,
            "rows " + std::to_string(shard.first) + " to " + std::to_string(shard.first + shard.count - 1)};
  }
  throw Error(ErrorCode::kMismatch, path + ": expected one of the shards in " + folder + "/manifest.json");
}

VerifiedPart verify_embeddings(const std::string& path) {
  const EmbeddingFile file(path);
  file.verify();
  return {path, "embeddings", file.info().digest(), std::to_string(file.info().count) + " prompts"};
}

VerifiedPart verify_hdf5(const std::string& path) {
  const std::string format = list_hdf5(path, 0).format;
  if (format == "onestep-embeddings") return verify_embeddings(path);
  return format == "onestep-images" ? verify_images(path) : verify_shard_file(path);
}

VerifiedPart verify_manifest_folder(const std::string& folder) {
  const std::string path = folder + "/manifest.json";
  const std::string format = text_field(read_written_json(path), "format");
  if (format == "onestep-checkpoint") return verify_checkpoint(folder);
  if (format == "onestep-pair-set") return verify_pair_set(folder);
  throw Error(ErrorCode::kCorrupt, path + ": /format: expected \"onestep-checkpoint\" or \"onestep-pair-set\", found \"" +
                                       format + "\"");
}

// SHA256SUMS as sha256sum writes it: "<64 hex digits>  <name>" a line.
void verify_listed_digests(const std::string& folder) {
  const std::string list = folder + "/SHA256SUMS";
  std::istringstream lines(read_file(list));
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    const std::string name = line.size() > 66 ? line.substr(66) : "";
    // A file of the folder itself or of one inside it, by a path that can't lead out.
    const std::size_t slash = name.find('/');
    const bool within = slash == std::string::npos
                            ? is_plain_file_name(name)
                            : is_plain_file_name(name.substr(0, slash)) && is_plain_file_name(name.substr(slash + 1));
    if (!within || line.substr(64, 2) != "  ") {
      throw Error(ErrorCode::kCorrupt, list + ": line " + std::to_string(number) +
                                           ": expected a digest, two spaces and a file's name, found \"" + line + "\"");
    }
    const std::string found = sha256_file(folder + "/" + name);
    if (found != line.substr(0, 64)) {
      throw Error(ErrorCode::kCorrupt, folder + "/" + name + ": sha256: expected " + line.substr(0, 64) +
                                           " (SHA256SUMS), found " + found);
    }
  }
  if (number == 0) throw Error(ErrorCode::kCorrupt, list + ": expected a line for each file, found none");
}

VerifiedPart verify_model(const std::string& folder) {
  const std::string path = folder + "/config.json";
  const json config = read_written_json(path);
  const std::string format = text_field(config, "format");
  if (format != "onestep-model" && format != "onestep-export" && format != "onestep-detector") {
    throw Error(ErrorCode::kCorrupt, path + ": /format: expected onestep-model, onestep-export or onestep-detector, found \"" +
                                         format + "\"");
  }
  const VerifiedPart weights = verify_safetensors(folder + "/model.safetensors");
  const std::string expected = text_field(config, "model_sha256");
  if (weights.digest != expected) {
    throw Error(ErrorCode::kCorrupt, weights.path + ": sha256: expected " + expected + " (config.json), found " +
                                         weights.digest);
  }
  if (format == "onestep-export") verify_listed_digests(folder);
  return {folder, format == "onestep-export" ? "export" : "model", weights.digest,
          text_field(config, "kind") + ", " + weights.detail};
}

// A diffusers folder that Onestep exported: every file is in its list of digests.
VerifiedPart verify_pipeline(const std::string& folder) {
  verify_listed_digests(folder);
  return {folder, "export", sha256_file(folder + "/SHA256SUMS"), "diffusers pipeline"};
}

std::vector<VerifiedPart> verify_run(const std::string& run) {
  std::vector<VerifiedPart> parts;
  const JobSpec spec = parse_job_spec(read_json_file(job_file(run)), run, job_file(run));
  const auto outcome = read_outcome(outcome_file(run));
  parts.push_back({run, "run folder", outcome ? outcome->digest : "",
                   spec.name + " (" + spec.kind + "), " + (outcome ? outcome->state : "not finished")});
  for (const std::string& checkpoint : list_checkpoints(checkpoints_folder(run))) {
    parts.push_back(verify_checkpoint(checkpoint));
  }
  if (file_exists(run + "/manifest.json")) parts.push_back(verify_manifest_folder(run));
  if (file_exists(run + "/config.json")) parts.push_back(verify_model(run));
  if (file_exists(run + "/onestep.json")) parts.push_back(verify_pipeline(run));
  if (file_exists(run + "/" + kEmbeddingFileName)) parts.push_back(verify_embeddings(run + "/" + kEmbeddingFileName));
  return parts;
}

}  // namespace

std::vector<VerifiedPart> verify_path(const std::string& path) {
  std::string plain = path;
  while (plain.size() > 1 && plain.back() == '/') plain.pop_back();
  if (!fs::exists(plain)) throw Error(ErrorCode::kNotFound, plain + ": no such file or folder");
  if (!fs::is_directory(plain)) {
    if (plain.ends_with(".safetensors")) return {verify_safetensors(plain)};
    if (plain.ends_with(".h5")) return {verify_hdf5(plain)};
    throw Error(ErrorCode::kUsage, plain + ": expected a folder, a .safetensors file or an .h5 file");
  }
  if (file_exists(job_file(plain))) return verify_run(plain);
  if (file_exists(plain + "/manifest.json")) return {verify_manifest_folder(plain)};
  if (file_exists(plain + "/config.json")) return {verify_model(plain)};
  if (file_exists(plain + "/onestep.json")) return {verify_pipeline(plain)};
  if (file_exists(plain + "/" + kEmbeddingFileName)) return {verify_embeddings(plain + "/" + kEmbeddingFileName)};
  throw Error(ErrorCode::kNotFound, plain + ": expected job.json (a run folder), manifest.json (a checkpoint or a pair "
                                            "set), config.json (a model), onestep.json (an exported pipeline) or embeddings.h5 in it, "
                                            "found none");
}

int print_verification(const std::string& path, bool as_json) {
  const std::vector<VerifiedPart> parts = verify_path(path);
  if (as_json) {
    json list = json::array();
    for (const VerifiedPart& part : parts) {
      list.push_back({{"path", part.path}, {"type", part.type}, {"digest", part.digest}, {"detail", part.detail}});
    }
    std::cout << json{{"whole", true}, {"parts", list}}.dump() << "\n";
    return 0;
  }
  for (const VerifiedPart& part : parts) {
    std::cout << part.path << ": whole; " << part.type << ", " << part.detail
              << (part.digest.empty() ? "" : "; " + part.digest) << "\n";
  }
  return 0;
}

}  // namespace onestep
