// What ranks say to each other: buffers as pointers and counts, so that MPI, NCCL or nothing at all can be behind it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace onestep {

// A contiguous part of a flat buffer, in elements.
struct PieceRange {
  std::int64_t offset = 0;
  std::int64_t length = 0;
};

// The piece that `rank` of `size` ranks owns after recursive halving, nearest partner first: pieces are equal, and a rank's
// place among them is its number with the bits reversed. Errors: kConfig unless `size` is a power of two that divides `length`.
PieceRange piece_of_rank(int rank, int size, std::int64_t length);

// What ranks do with flat buffers, in host memory or on a device. All methods but rank(), size() and piece_range() are collective: every rank calls the
// same ones in the same order, with buffers of the same size, from the one thread that made the communicator. Errors: kInternal when the transport fails.
class TensorCommunicator {
 public:
  virtual ~TensorCommunicator() = default;
  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int size() const = 0;

  // In place: afterwards piece_range(buffer.size()) of `buffer` holds the sum over ranks, and the rest is scratch. The
  // additions form one binary tree with neighbours in its leaves, ((r0+r1)+(r2+r3))+..., whatever carries them.
  // Errors: kConfig as piece_of_rank().
  virtual void reduce_scatter_tree(std::span<float> buffer) = 0;
  // In place: every rank's piece_range(buffer.size()) arrives in every other rank's buffer.
  virtual void all_gather_pieces(std::span<float> buffer) = 0;
  // In place sum on every rank, in whatever order is fastest; any number of ranks. Bits may differ between rank counts.
  virtual void all_reduce_fast(std::span<float> buffer) = 0;

  [[nodiscard]] PieceRange piece_range(std::int64_t length) const { return piece_of_rank(rank(), size(), length); }
};

// The same for host memory, and all else that ranks say.
class Communicator : public TensorCommunicator {
 public:
  virtual void barrier() = 0;
  // `bytes` of `root` arrive on every rank.
  virtual void broadcast(std::span<std::byte> bytes, int root) = 0;
  // The same number of bytes from each rank, in the order of ranks. all.size() == size() * mine.size().
  virtual void all_gather(std::span<const std::byte> mine, std::span<std::byte> all) = 0;
  // A text of any length from each rank, in the order of ranks; empty vector on other ranks than `root`.
  virtual std::vector<std::string> gather_texts(const std::string& mine, int root) = 0;

  // `text` of `root`, on every rank.
  std::string broadcast_text(const std::string& text, int root);
};

}  // namespace onestep
