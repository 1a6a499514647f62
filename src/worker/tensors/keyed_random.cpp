#include "worker/tensors/keyed_random.h"

#include "common/error.h"
#include "worker/tensors/grid_dispatch.h"
#include "worker/tensors/image_grid.h"
#include "worker/tensors/keyed_fill.h"
#include "worker/tensors/keyed_normal.h"
#include "worker/tensors/launch.h"

namespace onestep {
namespace {

torch::Tensor empty_rows(std::int64_t rows, at::IntArrayRef shape, const torch::TensorOptions& options = torch::kFloat32) {
  std::vector<std::int64_t> sizes = {rows};
  sizes.insert(sizes.end(), shape.begin(), shape.end());
  return torch::empty(sizes, options);
}

GridDraw grid_draw(const DrawKey& key, std::int64_t first_sample) {
  return {key.seed, key.stream, key.device_step.const_data_ptr<std::int64_t>(), static_cast<std::uint64_t>(first_sample)};
}

torch::Tensor device_normal(const DrawKey& key, std::int64_t first_sample, std::int64_t rows, at::IntArrayRef shape) {
  const auto options = key.device_step.options().dtype(torch::kFloat32);
  torch::Tensor out = empty_rows(rows, shape, shape.size() == 3 ? options.memory_format(torch::MemoryFormat::ChannelsLast) : options);
  Diffuse kernel;
  kernel.draw = grid_draw(key, first_sample);
  kernel.out = out.data_ptr<float>();
  kernel.batch = rows;
  kernel.channels = shape.size() == 3 ? shape[0] : 1;
  kernel.pixels = rows == 0 ? 0 : out.numel() / rows / kernel.channels;
  kernel.channels_last = true;
  launch(kernel, out);
  return out;
}

}  // namespace

torch::Tensor keyed_normal(const DrawKey& key, std::int64_t first_sample, std::int64_t rows,
                           at::IntArrayRef shape) {
  if (key.device_step.defined()) return device_normal(key, first_sample, rows, shape);
  std::vector<std::int64_t> samples(static_cast<std::size_t>(rows));
  for (std::int64_t row = 0; row < rows; ++row) samples[row] = first_sample + row;
  return keyed_normal(key, samples, shape);
}

torch::Tensor keyed_normal(const DrawKey& key, std::span<const std::int64_t> samples, at::IntArrayRef shape) {
  if (key.device_step.defined()) throw Error(ErrorCode::kInternal, "keyed draws: expected rows that follow each other on a device, found a list of them");
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
  if (key.device_step.defined()) {
    torch::Tensor drawn = torch::empty({rows}, key.device_step.options().dtype(torch::kFloat32));
    DrawNumbers kernel;
    kernel.draw = grid_draw(key, first_sample);
    kernel.batch = rows;
    kernel.uniform = drawn.data_ptr<float>();
    launch(kernel, drawn);
    return drawn;
  }
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
  if (key.device_step.defined()) {
    torch::Tensor drawn = torch::empty({rows}, key.device_step.options());
    DrawNumbers kernel;
    kernel.draw = grid_draw(key, first_sample);
    kernel.batch = rows;
    kernel.integer = drawn.data_ptr<std::int64_t>();
    kernel.limit = static_cast<std::uint64_t>(limit);
    launch(kernel, drawn);
    return drawn;
  }
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
