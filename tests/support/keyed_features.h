// Feature sets that tests and tools/golden/make_metrics_golden.py make alike: keyed draws, mixed, some directions much weaker.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include "common/hash.h"
#include "common/philox.h"
#include "worker/tensors/keyed_normal.h"
#include "worker/tensors/torch.h"

namespace onestep {

// The numbers of fill_keyed_uniform() (worker/models), which tests of metrics can't see: [rows, columns] fp64.
inline torch::Tensor keyed_draws(const std::string& name, std::int64_t rows, std::int64_t columns) {
  constexpr std::uint64_t kSeed = 5;
  const std::uint64_t sample = xxh3_128(name.data(), name.size())[0] & 0xFFFF'FFFF'FFFFu;
  torch::Tensor draws = torch::empty({rows, columns}, torch::kFloat64);
  auto* values = draws.data_ptr<double>();
  for (std::int64_t i = 0; i < draws.numel(); i += 4) {
    const auto words = keyed_words(kSeed, RandomStream::kInit, 0, sample, static_cast<std::uint32_t>(i / 4));
    for (std::int64_t j = 0; j < 4 && i + j < draws.numel(); ++j) {
      values[i + j] = static_cast<double>(2.0f * (unit_uniform(words[static_cast<std::size_t>(j)]) - 0.5f));
    }
  }
  return draws;
}

inline torch::Tensor keyed_features(const std::string& name, std::int64_t rows, std::int64_t columns, double shift = 0) {
  const auto mixing = keyed_draws(name + ".mixing", columns, columns) / std::sqrt(static_cast<double>(columns));
  const auto strength = torch::pow(2.0, -(torch::arange(columns, torch::kFloat64) * 8.0 / static_cast<double>(columns)));
  return torch::matmul(keyed_draws(name, rows, columns) * strength, mixing) + shift;
}

}  // namespace onestep
