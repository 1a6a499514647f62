#include "worker/run/checkpointer.h"

#include <cstddef>
#include <utility>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/safetensors_file.h"

namespace onestep {

Checkpointer::Checkpointer(std::string checkpoints_folder, int rank, int ranks)
    : checkpoints_folder_(std::move(checkpoints_folder)), rank_(rank), ranks_(ranks), thread_([this] { run(); }) {}

Checkpointer::~Checkpointer() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Checkpointer::snapshot(std::int64_t iteration, int attempt, const std::vector<CheckpointBuffer>& buffers) {
  {
    const std::lock_guard lock(mutex_);
    if (writing_) {
      throw Error(ErrorCode::kInternal, "checkpoint " + checkpoint_folder_name(iteration, attempt) +
                                            ": expected the last one to be written, found " + folder_ + " in progress");
    }
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    written_.reset();
  }
  // The thread sleeps: the copies and the folder's name are ours.
  copies_.resize(buffers.size());
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    copies_[i].tensor_name = buffers[i].name + "@" + std::to_string(buffers[i].offset);
    copies_[i].values.assign(buffers[i].values.begin(), buffers[i].values.end());
  }
  folder_ = checkpoints_folder_ + "/" + checkpoint_folder_name(iteration, attempt);
  {
    const std::lock_guard lock(mutex_);
    writing_ = true;
  }
  changed_.notify_all();
}

std::optional<WrittenShard> Checkpointer::done() {
  const std::lock_guard lock(mutex_);
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  return written_;
}

void Checkpointer::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !writing_; });
}

std::string Checkpointer::commit(const CheckpointManifest& manifest, int keep_last) {
  {
    const std::lock_guard lock(mutex_);
    if (writing_) {
      throw Error(ErrorCode::kInternal, folder_ + ": expected every shard to be written before the manifest, found this "
                                                  "rank's in progress");
    }
  }
  const std::string folder = checkpoints_folder_ + "/" + checkpoint_folder_name(manifest.iteration, manifest.attempt);
  write_checkpoint_manifest(folder, manifest);
  remove_old_checkpoints(checkpoints_folder_, keep_last);
  return folder;
}

std::string Checkpointer::shard_name(int rank, int ranks) {
  return "rank-" + std::to_string(rank) + "-of-" + std::to_string(ranks) + ".safetensors";
}

void Checkpointer::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return writing_ || stopping_; });
    if (!writing_) return;
    lock.unlock();
    std::optional<WrittenShard> written;
    std::exception_ptr error;
    try {
      written = write();
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    written_ = std::move(written);
    error_ = error;
    writing_ = false;
    changed_.notify_all();
  }
}

WrittenShard Checkpointer::write() const {
  create_folders_durably(folder_);
  std::vector<TensorView> tensors;
  for (const Copy& copy : copies_) {
    tensors.push_back({.name = copy.tensor_name,
                       .dtype = DType::kF32,
                       .shape = {static_cast<std::int64_t>(copy.values.size())},
                       .bytes = std::as_bytes(std::span(copy.values))});
  }
  const std::string path = folder_ + "/" + shard_name(rank_, ranks_);
  WrittenShard written;
  written.sha256 = write_safetensors(path, tensors, {});
  written.bytes = file_size(path);
  return written;
}

}  // namespace onestep
