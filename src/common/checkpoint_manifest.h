// What makes a folder a checkpoint: its manifest, written last.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace onestep {

// One contiguous range of one flat buffer inside one safetensors shard (tensor name: "<buffer>@<offset>").
struct CheckpointPiece {
  std::string buffer;         // "generator.parameters", "fake.exp_avg", ...
  std::int64_t offset = 0;    // first element within the buffer
  std::int64_t length = 0;    // elements
  std::string file;           // shard file name within the folder
};

struct CheckpointFile {
  std::string name;
  std::uint64_t bytes = 0;
  std::string sha256;
};

// A checkpoint folder is <run>/checkpoints/<iteration, 8 digits>-a<attempt>/, complete when manifest.json is in it.
struct CheckpointManifest {
  static constexpr int kVersion = 1;
  std::string kind;                   // job kind: "distill", "train_teacher", "train_detector"
  int attempt = 1;
  std::int64_t iteration = 0;         // iterations finished, over all phases
  std::int64_t images = 0;            // generator (or training) images so far
  std::string config_sha256;          // of the bit-relevant part of the spec
  nlohmann::json config;              // that part itself, for naming differing keys
  std::string commit;
  std::string processor;              // model name; bits are equal on one kind
  std::string reduction = "exact";
  nlohmann::json state;               // scalars of the run: counters, schedule position, phase
  std::vector<CheckpointFile> files;
  std::vector<CheckpointPiece> pieces;
};

nlohmann::json to_json(const CheckpointManifest& manifest);
// Strict; `where` names the file in errors. Errors: kCorrupt.
CheckpointManifest checkpoint_manifest_from_json(const nlohmann::json& json, const std::string& where);

std::string checkpoint_folder_name(std::int64_t iteration, int attempt);  // "00000300-a1"

// manifest.json written durably into `folder`, with its own digest in the field "manifest_sha256".
void write_checkpoint_manifest(const std::string& folder, const CheckpointManifest& manifest);
// Manifest and, with `verify_files`, size and digest of every file. Errors: kNotFound; kCorrupt naming file, expected, found.
CheckpointManifest read_checkpoint_manifest(const std::string& folder, bool verify_files);
// Digest that names a checkpoint: SHA-256 of manifest.json.
std::string checkpoint_digest(const std::string& folder);

struct FoundCheckpoint {
  std::string folder;  // absolute
  CheckpointManifest manifest;
};
struct CheckpointSearch {
  std::optional<FoundCheckpoint> newest;   // valid, highest iteration, then highest attempt
  std::vector<std::string> rejected;       // "folder: why", each bad one that was newer; kept on disk for inspection
};
// Looks at manifests only; verifies files from the newest down until one is valid.
CheckpointSearch find_newest_checkpoint(const std::string& checkpoints_folder);
// All folders with a manifest (not verified), oldest first.
std::vector<std::string> list_checkpoints(const std::string& checkpoints_folder);
// A pinned checkpoint (an evaluation wants it) has a file <checkpoints>/pins/<folder name>; keep_last never removes it.
void pin_checkpoint(const std::string& folder);
void unpin_checkpoint(const std::string& folder);
// Keeps the newest `keep` complete checkpoints (later attempts are newer) and all pinned ones; removes the others, manifest
// first, and folders that a crash left without a manifest before the newest complete one. Returns removed folders, oldest
// first. Call it from the thread that writes checkpoints, between two of them.
std::vector<std::string> remove_old_checkpoints(const std::string& checkpoints_folder, int keep);

}  // namespace onestep
