// The draws of numpy.random.RandomState that published metrics are defined by: which rows go into which split or subset.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace onestep {

// RandomState(seed): a function of the seed and of the calls before. One thread.
class NumpyRandom {
 public:
  explicit NumpyRandom(std::uint32_t seed) : words_(seed) {}
  // permutation(n): 0 .. n-1 shuffled from the last place down.
  std::vector<std::int64_t> permutation(std::int64_t n);
  // choice(n, size, replace=False): the first `size` of a permutation. size <= n.
  std::vector<std::int64_t> choice(std::int64_t n, std::int64_t size);

 private:
  // Uniform in 0 .. most: words masked to its bits until one fits.
  std::uint32_t interval(std::uint32_t most);

  std::mt19937 words_;
};

}  // namespace onestep
