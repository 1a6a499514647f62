#include "worker/tensors/keyed_random.h"

#include "worker/tensors/keyed_fill.h"
#include "worker/tensors/keyed_normal.h"

namespace onestep {
namespace {

torch::Tensor empty_rows(std::int64_t rows, at::IntArrayRef shape) {
  std::vector<std::int64_t> sizes = {rows};
  sizes.insert(sizes.end(), shape.begin(), shape.end());
  return torch::empty(sizes, torch::kFloat32);
}

}  // namespace

torch::Tensor keyed_normal(const DrawKey& key, std::int64_t first_sample, std::int64_t rows,
                           at::IntArrayRef shape) {
  std::vector<std::int64_t> samples(static_cast<std::size_t>(rows));
  for (std::int64_t row = 0; row < rows; ++row) samples[row] = first_sample + row;
  return keyed_normal(key, samples, shape);
}

torch::Tensor keyed_normal(const DrawKey& key, std::span<const std::int64_t> samples, at::IntArrayRef shape) {
  const auto rows = static_cast<std::int64_t>(samples.size());
  torch::Tensor out = empty_rows(rows, shape);
  const std::int64_t elements = rows == 0 ? 0 : out.numel() / rows;
  auto* data = out.data_ptr<float>();
  for (std::int64_t row = 0; row < rows; ++row) {
    fill_normal(key.seed, key.stream, key.step, static_cast<std::uint64_t>(samples[row]),
                data + row * elements, elements);
  }
  return out;
}

torch::Tensor keyed_uniform(const DrawKey& key, std::int64_t first_sample, std::int64_t rows) {
  torch::Tensor out = torch::empty({rows}, torch::kFloat32);
  auto* data = out.data_ptr<float>();
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto words = keyed_words(key.seed, key.stream, key.step,
                                   static_cast<std::uint64_t>(first_sample + row), 0);
    data[row] = unit_uniform(words[0]);
  }
  return out;
}

torch::Tensor keyed_integer(const DrawKey& key, std::int64_t first_sample, std::int64_t rows,
                            std::int64_t limit) {
  torch::Tensor out = torch::empty({rows}, torch::kInt64);
  auto* data = out.data_ptr<std::int64_t>();
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto words = keyed_words(key.seed, key.stream, key.step,
                                   static_cast<std::uint64_t>(first_sample + row), 0);
    data[row] = static_cast<std::int64_t>((std::uint64_t{words[0]} * static_cast<std::uint64_t>(limit)) >> 32);
  }
  return out;
}

}  // namespace onestep
