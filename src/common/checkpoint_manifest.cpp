#include "common/checkpoint_manifest.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/sealed_json.h"

namespace onestep {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kFormat = "onestep-checkpoint";
constexpr const char* kManifestName = "manifest.json";
constexpr const char* kPinsFolder = "pins";

std::string manifest_path(const std::string& folder) { return folder + "/" + kManifestName; }

// Without a trailing slash, so that the last part is the folder's name.
fs::path plain_path(const std::string& folder) {
  fs::path path = fs::path(folder).lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

std::string pin_path(const std::string& folder) {
  const fs::path path = plain_path(folder);
  return (path.parent_path() / kPinsFolder / path.filename()).string();
}

struct FolderName {
  std::int64_t iteration = 0;
  int attempt = 0;
  auto operator<=>(const FolderName&) const = default;
};

std::optional<FolderName> parse_folder_name(const std::string& text) {
  const auto dash = text.find("-a");
  if (dash == std::string::npos) return {};
  FolderName name;
  std::from_chars(text.data(), text.data() + dash, name.iteration);
  std::from_chars(text.data() + dash + 2, text.data() + text.size(), name.attempt);
  // Only the very spelling that checkpoint_folder_name() gives.
  if (name.attempt < 1 || checkpoint_folder_name(name.iteration, name.attempt) != text) return {};
  return name;
}

// Every folder of a checkpoint's name, oldest first, complete or not.
std::vector<std::pair<FolderName, std::string>> named_folders(
    const std::string& checkpoints_folder) {
  std::vector<std::pair<FolderName, std::string>> folders;
  std::error_code error;
  const fs::path root = fs::absolute(checkpoints_folder).lexically_normal();
  fs::directory_iterator entries(root, error);
  if (error == std::errc::no_such_file_or_directory) return folders;
  if (error) throw Error(ErrorCode::kIo, root.string() + ": list: " + error.message());
  for (const auto& entry : entries) {
    const auto name = parse_folder_name(entry.path().filename().string());
    if (name && entry.is_directory()) folders.emplace_back(*name, entry.path().string());
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

json file_json(const CheckpointFile& file) {
  return {{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.sha256}};
}

json piece_json(const CheckpointPiece& piece) {
  return {{"buffer", piece.buffer},
          {"offset", piece.offset},
          {"length", piece.length},
          {"file", piece.file}};
}

std::vector<CheckpointFile> read_files(StrictObject& fields, const std::string& where) {
  std::vector<CheckpointFile> files;
  std::set<std::string> names;
  for (const json& item : fields.array("files")) {
    StrictObject entry(item, where, "/files/" + std::to_string(files.size()));
    CheckpointFile file;
    file.name = entry.text("name");
    if (!is_plain_file_name(file.name) || file.name == kManifestName) {
      entry.fail("name",
                 "expected the plain name of a file in the folder, found \"" + file.name + "\"");
    }
    if (!names.insert(file.name).second)
      entry.fail("name", "expected each file once, found " + file.name + " twice");
    file.bytes = entry.natural("bytes");
    file.sha256 = entry.sha256("sha256");
    entry.finish();
    files.push_back(std::move(file));
  }
  return files;
}

std::vector<CheckpointPiece> read_pieces(StrictObject& fields,
                                         const std::vector<CheckpointFile>& files,
                                         const std::string& where) {
  std::vector<CheckpointPiece> pieces;
  for (const json& item : fields.array("pieces")) {
    StrictObject entry(item, where, "/pieces/" + std::to_string(pieces.size()));
    CheckpointPiece piece;
    piece.buffer = entry.text("buffer");
    piece.offset = entry.integer("offset", 0);
    piece.length = entry.integer("length", 0);
    piece.file = entry.text("file");
    const bool listed = std::any_of(files.begin(), files.end(), [&](const CheckpointFile& file) {
      return file.name == piece.file;
    });
    if (!listed) entry.fail("file", "expected one of /files, found \"" + piece.file + "\"");
    entry.finish();
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

// Each buffer is covered from its first element on, without gap or overlap.
void check_coverage(const std::vector<CheckpointPiece>& pieces, const StrictObject& fields) {
  std::map<std::string, std::vector<std::pair<std::int64_t, std::int64_t>>> ranges;
  for (const CheckpointPiece& piece : pieces)
    ranges[piece.buffer].emplace_back(piece.offset, piece.length);
  for (auto& [buffer, parts] : ranges) {
    std::sort(parts.begin(), parts.end());
    std::int64_t position = 0;
    for (const auto& [offset, length] : parts) {
      if (offset != position || __builtin_add_overflow(position, length, &position)) {
        fields.fail("pieces", "buffer " + buffer + ": expected a piece at offset " +
                                  std::to_string(position) + ", found one at " +
                                  std::to_string(offset));
      }
    }
  }
}

void verify_file(const std::string& folder, const CheckpointFile& file) {
  const std::string path = folder + "/" + file.name;
  if (!file_exists(path))
    throw Error(ErrorCode::kCorrupt, path + ": expected a file of the checkpoint, found none");
  if (const auto bytes = file_size(path); bytes != file.bytes) {
    throw Error(ErrorCode::kCorrupt, path + ": size: expected " + std::to_string(file.bytes) +
                                         " bytes, found " + std::to_string(bytes));
  }
  if (const std::string found = sha256_file(path); found != file.sha256) {
    throw Error(ErrorCode::kCorrupt,
                path + ": sha256: expected " + file.sha256 + ", found " + found);
  }
}

// Removes the folder's content and then itself; its manifest is already gone.
void remove_folder(const std::string& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  if (error) throw Error(ErrorCode::kIo, folder + ": remove: " + error.message());
}

}  // namespace

json to_json(const CheckpointManifest& manifest) {
  json files = json::array();
  for (const CheckpointFile& file : manifest.files) files.push_back(file_json(file));
  json pieces = json::array();
  for (const CheckpointPiece& piece : manifest.pieces) pieces.push_back(piece_json(piece));
  return {{"format", kFormat},
          {"format_version", CheckpointManifest::kVersion},
          {"kind", manifest.kind},
          {"attempt", manifest.attempt},
          {"iteration", manifest.iteration},
          {"images", manifest.images},
          {"config_sha256", manifest.config_sha256},
          {"config", manifest.config},
          {"commit", manifest.commit},
          {"processor", manifest.processor},
          {"reduction", manifest.reduction},
          {"state", manifest.state},
          {"files", std::move(files)},
          {"pieces", std::move(pieces)}};
}

CheckpointManifest checkpoint_manifest_from_json(const json& document, const std::string& where) {
  StrictObject fields(document, where, "");
  fields.require_text("format", kFormat);
  fields.require_integer("format_version", CheckpointManifest::kVersion);
  CheckpointManifest manifest;
  manifest.kind = fields.text("kind");
  manifest.attempt = static_cast<int>(fields.integer("attempt", 1));
  manifest.iteration = fields.integer("iteration", 0);
  manifest.images = fields.integer("images", 0);
  manifest.config_sha256 = fields.sha256("config_sha256");
  manifest.config = fields.any("config");
  manifest.commit = fields.text("commit");
  manifest.processor = fields.text("processor");
  manifest.reduction = fields.text("reduction");
  manifest.state = fields.any("state");
  manifest.files = read_files(fields, where);
  manifest.pieces = read_pieces(fields, manifest.files, where);
  fields.finish();
  check_coverage(manifest.pieces, fields);
  return manifest;
}

std::string checkpoint_folder_name(std::int64_t iteration, int attempt) {
  std::array<char, 48> text{};
  std::snprintf(text.data(), text.size(), "%08lld-a%d", static_cast<long long>(iteration), attempt);
  return text.data();
}

void write_checkpoint_manifest(const std::string& folder, const CheckpointManifest& manifest) {
  const std::string path = manifest_path(folder);
  const json document = to_json(manifest);
  // What could not be read back must not be written: that would be a lost checkpoint.
  try {
    checkpoint_manifest_from_json(document, path);
  } catch (const Error& error) {
    throw Error(ErrorCode::kInternal,
                std::string("checkpoint manifest not written: ") + error.what());
  }
  write_file_durably(path, seal_json(document));
}

CheckpointManifest read_checkpoint_manifest(const std::string& folder, bool verify_files) {
  const std::string path = manifest_path(folder);
  CheckpointManifest manifest = checkpoint_manifest_from_json(read_sealed_json(path), path);
  if (verify_files) {
    for (const CheckpointFile& file : manifest.files) verify_file(folder, file);
  }
  return manifest;
}

std::string checkpoint_digest(const std::string& folder) {
  return sha256_file(manifest_path(folder));
}

CheckpointSearch find_newest_checkpoint(const std::string& checkpoints_folder) {
  CheckpointSearch search;
  auto folders = named_folders(checkpoints_folder);
  std::reverse(folders.begin(), folders.end());
  for (const auto& [name, folder] : folders) {
    if (!file_exists(manifest_path(folder))) continue;
    try {
      CheckpointManifest manifest = read_checkpoint_manifest(folder, true);
      if (manifest.iteration != name.iteration || manifest.attempt != name.attempt) {
        throw Error(ErrorCode::kCorrupt,
                    manifest_path(folder) +
                        ": expected the checkpoint that the folder names, found " +
                        checkpoint_folder_name(manifest.iteration, manifest.attempt));
      }
      search.newest = FoundCheckpoint{folder, std::move(manifest)};
      return search;
    } catch (const Error& error) {
      // A disk that can't be read is no reason to go back to an older checkpoint.
      if (error.code() == ErrorCode::kIo) throw;
      search.rejected.push_back(folder + ": " + error.what());
    }
  }
  return search;
}

std::vector<std::string> list_checkpoints(const std::string& checkpoints_folder) {
  std::vector<std::string> complete;
  for (const auto& [name, folder] : named_folders(checkpoints_folder)) {
    if (file_exists(manifest_path(folder))) complete.push_back(folder);
  }
  return complete;
}

void pin_checkpoint(const std::string& folder) {
  const std::string pin = pin_path(folder);
  create_folders_durably(fs::path(pin).parent_path().string());
  write_file_durably(pin, "");
  // Pinned first, looked at second: a removal that came before is seen here.
  if (!file_exists(manifest_path(folder))) {
    remove_file_durably(pin);
    throw Error(ErrorCode::kNotFound,
                folder + ": expected a checkpoint to pin, found no " + kManifestName);
  }
}

void unpin_checkpoint(const std::string& folder) {
  const std::string pin = pin_path(folder);
  if (file_exists(pin)) remove_file_durably(pin);
}

std::vector<std::string> remove_old_checkpoints(const std::string& checkpoints_folder, int keep) {
  // By age: a later attempt's are newer, whatever a bad one of an earlier attempt is called.
  auto folders = named_folders(checkpoints_folder);
  std::sort(folders.begin(), folders.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.attempt, a.first.iteration) >
           std::pair(b.first.attempt, b.first.iteration);
  });
  std::vector<std::string> removed;
  int complete = 0;
  for (const auto& [name, folder] : folders) {
    const bool has_manifest = file_exists(manifest_path(folder));
    if (has_manifest) ++complete;
    // Without a manifest it is being written (newer than all complete ones) or was left by a crash.
    const bool wanted = has_manifest ? complete <= std::max(keep, 1) : complete == 0;
    if (wanted || file_exists(pin_path(folder))) continue;
    if (has_manifest) remove_file_durably(manifest_path(folder));
    remove_folder(folder);
    removed.push_back(folder);
  }
  std::reverse(removed.begin(), removed.end());
  return removed;
}

}  // namespace onestep
