// Ranks over MPI: host buffers, reductions of our own order.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "worker/comm/communicator.h"
#include "worker/comm/mpi_session.h"

namespace onestep {

constexpr std::size_t kDefaultChunkFloats = 128 * 1024;

class MpiCommunicator : public Communicator {
 public:
  // Over all ranks of the world. chunk_floats: a swap goes in chunks of so many floats, the next under way while the last is
  // added; it does not change the sum's bits. `session` must be running for the object's life. Errors: kInternal.
  explicit MpiCommunicator(const MpiSession& session, std::size_t chunk_floats = kDefaultChunkFloats);
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;
  ~MpiCommunicator() override;

  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int size() const override { return size_; }
  void barrier() override;
  void broadcast(std::span<std::byte> bytes, int root) override;
  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  std::vector<std::string> gather_texts(const std::string& mine, int root) override;
  void reduce_scatter_tree(std::span<float> buffer) override;
  void all_gather_pieces(std::span<float> buffer) override;
  void all_reduce_fast(std::span<float> buffer) override;

  // What recursive_halving.h asks of a transport; called by both partners.
  void swap_and_add(int partner, const float* send, float* keep, std::size_t length);
  void swap(int partner, const float* send, float* receive, std::size_t length);

 private:
  struct Handle;  // keeps mpi.h out of this header

  std::unique_ptr<Handle> handle_;
  int rank_ = 0;
  int size_ = 1;
  std::size_t chunk_floats_;
  std::vector<float> incoming_;  // two chunks
};

}  // namespace onestep
