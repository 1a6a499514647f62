// The noise-image pair set: HDF5 shards with a digest for each block of rows, and a manifest written last.
#pragma once

#include <nlohmann/json.hpp>

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace onestep {

// What a pair set is, in every shard's attributes and in the manifest.
struct PairSetInfo {
  static constexpr int kVersion = 2;
  std::string teacher_sha256;            // of the teacher's model.safetensors
  std::string sampler;                   // JSON text of the resolved sampler options
  int steps = 0;
  std::uint64_t seed = 0;
  std::int64_t channels = 0, height = 0, width = 0;
  std::int64_t count = 0;                // rows of the whole set
  std::int64_t rows_per_shard = 0;
  std::string prompts_sha256;            // EmbeddingFileInfo::digest(): labels are its rows; "": labels are classes
};

// One shard in memory: noise, image f32 [n,C,H,W] (noise has unit variance), label i64 [n], index i64 [n] (global).
struct PairRows {
  std::vector<float> noise;
  std::vector<float> image;
  std::vector<std::int64_t> label;
  std::vector<std::int64_t> index;
};

struct PairShardRecord {
  std::int64_t index = 0;
  std::string file;     // name within the set's folder
  std::int64_t first = 0, count = 0;
  std::uint64_t bytes = 0;
  std::string sha256;
};

struct PairSetManifest {
  PairSetInfo info;
  std::vector<PairShardRecord> shards;  // by index
};

constexpr std::int64_t kPairBlockRows = 256;  // rows under one XXH3-128 digest

std::string pair_shard_name(std::int64_t shard_index);  // "pairs-00003.h5"
// Writes <folder>/pairs-NNNNN.h5 under a temporary name carrying the attempt, then publishes it durably. Contiguous, uncompressed, no time stamps:
// equal rows, equal bytes. Returns the record. Errors: kIo (also for a full disk).
PairShardRecord write_pair_shard(const std::string& folder, const PairSetInfo& info, std::int64_t shard_index,
                                 int attempt, const PairRows& rows);
// Opens a finished shard, checks attributes against `info`, shapes, layout and every block digest; its record.
// Errors: kNotFound, kCorrupt, kMismatch, naming file, what, expected, found.
PairShardRecord verify_pair_shard(const std::string& folder, const PairSetInfo& info, std::int64_t shard_index);

// manifest.json of the set, written when all shards exist. Its SHA-256 names the set.
void write_pair_manifest(const std::string& folder, const PairSetManifest& manifest);
// Strict. Errors: kNotFound, kCorrupt.
PairSetManifest read_pair_manifest(const std::string& folder);
std::string pair_set_digest(const std::string& folder);

// Random rows of one shard by pread at the datasets' file offsets; thread-safe after construction. Move-only.
class PairShardReader {
 public:
  // Checks attributes, shapes, contiguous layout, type and byte order, file size, against manifest and record. Block digests: verify_pair_shard().
  PairShardReader(const std::string& folder, const PairSetInfo& info, const PairShardRecord& record);
  PairShardReader(PairShardReader&& other) noexcept;
  PairShardReader& operator=(PairShardReader&& other) noexcept;
  ~PairShardReader();
  // row within the shard; noise and image: C*H*W floats each. Errors: kIo, kCorrupt for a short read.
  void read_row(std::int64_t row, std::span<float> noise, std::span<float> image, std::int64_t& label) const;

 private:
  int descriptor_ = -1;
  std::string path_;
  std::uint64_t noise_offset_ = 0, image_offset_ = 0;  // bytes within the file
  std::int64_t rows_ = 0, row_elements_ = 0;
  std::vector<std::int64_t> labels_;
};

}  // namespace onestep
