#include "worker/data/global_order.h"

#include <bit>
#include <limits>
#include <string>

#include "common/error.h"

namespace onestep {
namespace {

constexpr int kNumRounds =
    8;  // a multiple of two, so that each half is mixed as often as the other

// A permutation of [0, 2^(2 * half_bits)): a Feistel network, whose round function is Philox keyed
// by (seed, stream, epoch, round).
std::uint64_t permute(std::uint64_t seed, RandomStream stream, std::uint32_t epoch, int half_bits, std::uint64_t value) {
  const std::uint64_t mask = (std::uint64_t{1} << half_bits) - 1;
  std::uint64_t left = value >> half_bits;
  std::uint64_t right = value & mask;
  for (int round = 0; round < kNumRounds; ++round) {
    const auto words =
        keyed_words(seed, stream, epoch, right, static_cast<std::uint32_t>(round));
    const std::uint64_t mixed = left ^ (words[0] & mask);
    left = right;
    right = mixed;
  }
  return (left << half_bits) | right;
}

}  // namespace

std::int64_t ordered_index(std::uint64_t seed, std::int64_t num_rows, std::int64_t position, RandomStream stream) {
  constexpr std::int64_t kMaxRows = std::int64_t{1} << 46;
  if (num_rows < 1 || num_rows > kMaxRows || position < 0 ||
      position / num_rows > std::numeric_limits<std::uint32_t>::max()) {
    throw Error(ErrorCode::kInternal,
                "global order: position " + std::to_string(position) + " of " +
                    std::to_string(num_rows) +
                    " rows; expected 1..2^46 rows, a position >= 0 and fewer than 2^32 epochs");
  }
  const auto epoch = static_cast<std::uint32_t>(position / num_rows);
  const auto limit = static_cast<std::uint64_t>(num_rows);
  const int half_bits = (std::bit_width(limit - 1) + 1) / 2;
  // Cycle walking: outside [0, N) the permutation is applied again; at most 4 N values, so about 4
  // steps at worst on average.
  auto value = static_cast<std::uint64_t>(position % num_rows);
  do {
    value = permute(seed, stream, epoch, half_bits, value);
  } while (value >= limit);
  return static_cast<std::int64_t>(value);
}

}  // namespace onestep
