#include "worker/models/initialize.h"

#include <algorithm>

#include "common/hash.h"
#include "worker/tensors/keyed_normal.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

// 48 bits of the name's hash take the place of the sample index.
std::int64_t sample_of(const std::string& name) {
  return static_cast<std::int64_t>(xxh3_128(name.data(), name.size())[0] & 0xFFFF'FFFF'FFFFu);
}

}  // namespace

void fill_keyed_uniform(torch::Tensor& parameter, std::uint64_t seed, const std::string& name, double bound) {
  torch::NoGradGuard no_grad;
  torch::Tensor values = torch::empty(parameter.sizes());
  auto* data = values.data_ptr<float>();
  const auto sample = static_cast<std::uint64_t>(sample_of(name));
  const auto scale = static_cast<float>(2 * bound);
  const std::int64_t count = values.numel();
  for (std::int64_t first = 0; first < count; first += 4) {
    const auto words = keyed_words(seed, RandomStream::kInit, 0, sample, static_cast<std::uint32_t>(first / 4));
    for (std::int64_t i = first; i < std::min(first + 4, count); ++i) {
      data[i] = scale * (unit_uniform(words[i - first]) - 0.5f);
    }
  }
  parameter.copy_(values);
}

void fill_keyed_normal(torch::Tensor& parameter, std::uint64_t seed, const std::string& name,
                       double deviation) {
  torch::NoGradGuard no_grad;
  const std::int64_t samples[] = {sample_of(name)};
  const auto values = keyed_normal({seed, RandomStream::kInit, 0}, samples, {parameter.numel()});
  parameter.copy_(values.view(parameter.sizes()) * deviation);
}

}  // namespace onestep
