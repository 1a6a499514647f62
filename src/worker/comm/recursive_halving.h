// The canonical sum across ranks, whatever carries it: recursive halving, nearest partner first, and its reverse. Host or device memory: nothing here looks
// into a buffer.
//
// A transport has
//   void swap_and_add(int partner, const float* send, float* keep, std::size_t count);   keep += what the partner sends
//   void swap(int partner, const float* send, float* receive, std::size_t count);
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "worker/comm/communicator.h"

namespace onestep {

// Afterwards piece_of_rank(rank, size, ...) of `buffer` holds the sum over ranks, ((r0+r1)+(r2+r3))+...; the rest is scratch. Errors: kConfig as
// piece_of_rank().
template <class Transport>
void halve_and_add(Transport& transport, int rank, int size, std::span<float> buffer) {
  static_cast<void>(piece_of_rank(rank, size, static_cast<std::int64_t>(buffer.size())));  // refuses what can't be halved
  std::span<float> piece = buffer;
  for (int distance = 1; distance < size; distance *= 2) {
    const std::size_t half = piece.size() / 2;
    const std::span<float> lower = piece.first(half), upper = piece.last(half);
    const bool keep_upper = (rank & distance) != 0;
    piece = keep_upper ? upper : lower;
    transport.swap_and_add(rank ^ distance, (keep_upper ? lower : upper).data(), piece.data(), half);
  }
}

// Every rank's piece arrives in every other rank's buffer. The halvings backwards: what was split with a partner last is exchanged first.
template <class Transport>
void gather_halves(Transport& transport, int rank, int size, std::span<float> buffer) {
  const PieceRange mine = piece_of_rank(rank, size, static_cast<std::int64_t>(buffer.size()));
  auto offset = static_cast<std::size_t>(mine.offset), length = static_cast<std::size_t>(mine.length);
  for (int distance = size / 2; distance >= 1; distance /= 2) {
    const std::size_t other = (rank & distance) != 0 ? offset - length : offset + length;
    transport.swap(rank ^ distance, buffer.data() + offset, buffer.data() + other, length);
    offset = std::min(offset, other);
    length *= 2;
  }
}

}  // namespace onestep
