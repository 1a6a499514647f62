// Writes this rank's part of a checkpoint beside the training: the copy is the only pause.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "common/checkpoint_manifest.h"

namespace onestep {

// Somebody's floats: elements [offset, offset + values.size()) of the flat buffer `name`.
struct CheckpointBuffer {
  std::string name;
  std::int64_t offset = 0;
  std::span<const float> values;
};

struct WrittenShard {
  std::uint64_t bytes = 0;
  std::string sha256;
};

// One checkpoint at a time. Its own thread touches the disk; all methods are called from one other thread. Knows no ranks but its
// number: whoever calls finds out when all ranks are done.
class Checkpointer {
 public:
  Checkpointer(std::string checkpoints_folder, int rank, int ranks);
  Checkpointer(const Checkpointer&) = delete;
  Checkpointer& operator=(const Checkpointer&) = delete;
  // Waits for a write in progress.
  ~Checkpointer();

  // Copies the buffers and returns; they are then written durably to
  // <checkpoints>/<iteration>-a<attempt>/rank-<r>-of-<R>.safetensors, a tensor "<name>@<offset>" each.
  // Errors: kInternal while another is being written; what the last write threw, if nobody has asked yet.
  void snapshot(std::int64_t iteration, int attempt, const std::vector<CheckpointBuffer>& buffers);
  // The shard of the last snapshot once it is durable; nullopt while it is being written, or before any.
  // Errors: what the write threw (kIo: a full disk).
  [[nodiscard]] std::optional<WrittenShard> done();
  // Until the write in progress has ended, well or not.
  void wait();
  // All shards are durable: the manifest makes the folder a checkpoint, and then older ones beyond `keep_last` go. Rank 0 alone.
  // Returns the folder. Errors: kIo; kInternal while this rank's shard is being written.
  std::string commit(const CheckpointManifest& manifest, int keep_last);

  static std::string shard_name(int rank, int ranks);  // "rank-0-of-2.safetensors"

 private:
  struct Copy {
    std::string tensor_name;
    std::vector<float> values;
  };
  void run();
  WrittenShard write() const;

  const std::string checkpoints_folder_;
  const int rank_, ranks_;
  std::string folder_;        // of the snapshot being written
  std::vector<Copy> copies_;  // kept from one snapshot to the next
  std::mutex mutex_;          // guards what follows
  std::condition_variable changed_;
  bool writing_ = false, stopping_ = false;
  std::optional<WrittenShard> written_;
  std::exception_ptr error_;
  std::thread thread_;
};

}  // namespace onestep
