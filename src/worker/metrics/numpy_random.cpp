#include "worker/metrics/numpy_random.h"

#include <bit>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "common/error.h"

namespace onestep {

std::uint32_t NumpyRandom::interval(std::uint32_t most) {
  if (most == 0) return 0;
  const std::uint32_t mask = std::numeric_limits<std::uint32_t>::max() >> std::countl_zero(most);
  std::uint32_t value = 0;
  do {
    value = static_cast<std::uint32_t>(words_()) & mask;
  } while (value > most);
  return value;
}

std::vector<std::int64_t> NumpyRandom::permutation(std::int64_t n) {
  if (n < 0 || n > std::numeric_limits<std::uint32_t>::max()) {
    throw Error(ErrorCode::kInternal, "permutation: expected 0..2^32-1 elements, found " + std::to_string(n));
  }
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (std::int64_t i = n - 1; i >= 1; --i) {
    std::swap(order[static_cast<std::size_t>(i)], order[interval(static_cast<std::uint32_t>(i))]);
  }
  return order;
}

std::vector<std::int64_t> NumpyRandom::choice(std::int64_t n, std::int64_t size) {
  if (size > n) {
    throw Error(ErrorCode::kMismatch,
                "choice: expected at most " + std::to_string(n) + " rows, found " + std::to_string(size));
  }
  auto order = permutation(n);
  order.resize(static_cast<std::size_t>(size));
  return order;
}

}  // namespace onestep
