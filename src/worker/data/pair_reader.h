// Noise-image pairs for training: a verified pair set, read ahead in the global order.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/pair_file.h"
#include "worker/data/prefetcher.h"
#include "worker/tensors/torch.h"

namespace onestep {

// Rows of the pair set in the order of training; contiguous CPU tensors that the receiver owns.
struct PairBatch {
  std::int64_t position = 0;  // in the global order, of the first row here
  torch::Tensor noise;        // [n,C,H,W] fp32, unit variance
  torch::Tensor image;        // [n,C,H,W] fp32
  torch::Tensor label;        // [n] int64
  torch::Tensor index;        // [n] int64, global row of the pair set
};

// An opened pair set. Thread-safe after construction.
class PairSet {
 public:
  // Reads the manifest, opens every shard it names and checks their attributes and layout.
  // Errors: kNotFound, kCorrupt; kMismatch if the pairs are of another teacher, naming both
  // digests.
  PairSet(std::string folder, const std::string& teacher_sha256);

  // Checks the block digests and the file's SHA-256 of this rank's share of the shards
  // (plan_shards); all ranks together check all. Errors: kCorrupt naming the shard.
  void verify(int rank, int ranks) const;

  [[nodiscard]] const PairSetInfo& info() const { return manifest_.info; }
  [[nodiscard]] std::int64_t size() const { return manifest_.info.count; }
  // SHA-256 of the manifest: names the set.
  [[nodiscard]] const std::string& digest() const { return digest_; }
  // The rows of these global indices, in this order; position is left 0. Errors: kIo, kCorrupt.
  [[nodiscard]] PairBatch read(const std::vector<std::int64_t>& indices) const;

 private:
  std::string folder_;
  PairSetManifest manifest_;
  std::string digest_;
  std::vector<PairShardReader> shards_;
};

// Which rows of the global order one rank reads. Iteration k of the reader covers positions
// [first_position + k * global_count, + global_count); this rank's are the `count` from `offset` on
// within them.
struct PairSlice {
  std::uint64_t seed = 0;
  std::int64_t max_pairs = 0;       // only the first of them take part; 0: all
  std::int64_t first_position = 0;  // where this reader's first iteration begins
  std::int64_t global_count = 0;    // pairs an iteration, over all ranks
  std::int64_t offset = 0;          // of this rank's contiguous slice
  std::int64_t count = 0;           // rows of this rank's slice
};

// Reads the slices of the next two iterations ahead in a thread of its own. The set must outlive
// the reader.
class PairReader {
 public:
  // Errors: kConfig for a slice that is not within its iteration, or more pairs than the set has.
  PairReader(const PairSet& set, const PairSlice& slice);
  // This rank's rows of the next iteration. Errors: those of PairSet::read.
  PairBatch next() { return prefetcher_->next(); }
  // Seconds that next() has stood waiting for the disk.
  [[nodiscard]] double waited_s() const { return prefetcher_->waited_s(); }

 private:
  std::unique_ptr<Prefetcher<PairBatch>> prefetcher_;
};

}  // namespace onestep
