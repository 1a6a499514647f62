// The manifest of a pair set; its shards are in pair_file.cpp.
#include <utility>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/pair_file.h"
#include "common/sealed_json.h"
#include "common/shard_plan.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr const char* kSetFormat = "onestep-pair-set";
constexpr const char* kManifestName = "manifest.json";

json shard_json(const PairShardRecord& record) {
  return {{"index", record.index}, {"file", record.file},   {"first", record.first},
          {"count", record.count}, {"bytes", record.bytes}, {"sha256", record.sha256}};
}

json manifest_json(const PairSetManifest& manifest) {
  const PairSetInfo& info = manifest.info;
  json shards = json::array();
  for (const PairShardRecord& record : manifest.shards) shards.push_back(shard_json(record));
  json document = {{"format", kSetFormat},
          {"format_version", PairSetInfo::kVersion},
          {"teacher_sha256", info.teacher_sha256},
          {"sampler", info.sampler},
          {"steps", info.steps},
          {"seed", info.seed},
          {"channels", info.channels},
          {"height", info.height},
          {"width", info.width},
          {"count", info.count},
          {"rows_per_shard", info.rows_per_shard},
          {"shards", std::move(shards)}};
  if (!info.prompts_sha256.empty()) document["prompts_sha256"] = info.prompts_sha256;
  return document;
}

PairSetManifest manifest_from_json(const json& document, const std::string& where) {
  StrictObject fields(document, where, "");
  fields.require_text("format", kSetFormat);
  fields.require_integer("format_version", PairSetInfo::kVersion);
  PairSetManifest manifest;
  manifest.info.teacher_sha256 = fields.sha256("teacher_sha256");
  manifest.info.sampler = fields.text("sampler");
  manifest.info.steps = static_cast<int>(fields.integer("steps", 1));
  manifest.info.seed = fields.natural("seed");
  manifest.info.channels = fields.integer("channels", 1);
  manifest.info.height = fields.integer("height", 1);
  manifest.info.width = fields.integer("width", 1);
  manifest.info.count = fields.integer("count", 1);
  manifest.info.rows_per_shard = fields.integer("rows_per_shard", 1);
  if (document.contains("prompts_sha256")) manifest.info.prompts_sha256 = fields.sha256("prompts_sha256");
  // The plan follows from count and rows_per_shard; the list must agree with it.
  const json& list = fields.array("shards");
  const std::int64_t rows = manifest.info.rows_per_shard;
  const auto num_shards = static_cast<std::size_t>((manifest.info.count - 1) / rows + 1);
  if (list.size() != num_shards) {
    fields.fail("shards", "expected " + std::to_string(num_shards) + " shards, found " +
                              std::to_string(list.size()));
  }
  for (const Shard& shard : plan_shards(manifest.info.count, rows, 1)) {
    StrictObject entry(list[static_cast<std::size_t>(shard.index)], where,
                       "/shards/" + std::to_string(shard.index));
    entry.require_integer("index", shard.index);
    entry.require_text("file", pair_shard_name(shard.index));
    entry.require_integer("first", shard.first);
    entry.require_integer("count", shard.count);
    PairShardRecord record{shard.index, pair_shard_name(shard.index), shard.first, shard.count, 0,
                           {}};
    record.bytes = entry.natural("bytes");
    record.sha256 = entry.sha256("sha256");
    entry.finish();
    manifest.shards.push_back(std::move(record));
  }
  fields.finish();
  return manifest;
}

}  // namespace

void write_pair_manifest(const std::string& folder, const PairSetManifest& manifest) {
  const std::string path = folder + "/" + kManifestName;
  const json document = manifest_json(manifest);
  // What could not be read back must not be written.
  try {
    manifest_from_json(document, path);
  } catch (const Error& error) {
    throw Error(ErrorCode::kInternal,
                std::string("pair set's manifest not written: ") + error.what());
  }
  write_file_durably(path, seal_json(document));
}

PairSetManifest read_pair_manifest(const std::string& folder) {
  const std::string path = folder + "/" + kManifestName;
  return manifest_from_json(read_sealed_json(path), path);
}

std::string pair_set_digest(const std::string& folder) {
  return sha256_file(folder + "/" + kManifestName);
}

}  // namespace onestep
