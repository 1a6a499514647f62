// Tensors between devices by NCCL: the canonical sum by grouped sends and receives and one addition, or NCCL's own all-reduce; and a watchdog, since a rank
// that is gone leaves the others waiting for ever.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "worker/comm/communicator.h"

namespace onestep {

// What one rank makes and every rank needs; how it gets there (MPI) is the caller's. As NCCL's ncclUniqueId.
using NcclId = std::array<std::byte, 128>;
NcclId make_nccl_id();

struct NcclLimits {
  std::chrono::seconds start{120};      // for all ranks to arrive
  std::chrono::seconds collective{600}; // for one collective, from the end of the one before it
};

// One a process, for its current device. Buffers are device memory; every collective is asynchronous on PyTorch's current stream and may be captured in a
// graph. Every rank calls the same ones in the same order, with equal lengths, from one thread. Errors: kInternal when NCCL fails, when ranks do not arrive in
// time, and, at the next call, when the watchdog has ended a collective that was stuck.
class NcclCommunicator final : public TensorCommunicator {
 public:
  // Waits for all ranks, at most limits.start.
  NcclCommunicator(const NcclId& id, int rank, int size, const NcclLimits& limits = {});
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;
  // Waits for nothing: what is still under way is aborted.
  ~NcclCommunicator() override;

  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int size() const override { return size_; }
  void reduce_scatter_tree(std::span<float> buffer) override;
  void all_gather_pieces(std::span<float> buffer) override;
  void all_reduce_fast(std::span<float> buffer) override;

  // The watchdog looks after what this thread's stream has been given until now, under that name: after each replay of a graph with collectives inside.
  void watch(const std::string& name);
  // Errors: kInternal with what the watchdog has found.
  void check();

  // What recursive_halving.h asks of a transport.
  void swap_and_add(int partner, const float* send, float* keep, std::size_t count);
  void swap(int partner, const float* send, float* receive, std::size_t count);

 private:
  struct Handle;  // keeps nccl.h and CUDA out of this header

  int rank_, size_;
  std::unique_ptr<Handle> handle_;
};

}  // namespace onestep
