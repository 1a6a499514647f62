#include "bench_network.h"

#include <cmath>

#include "common/error.h"
#include "worker/models/initialize.h"
#include "worker/models/model_factory.h"

namespace onestep {
namespace {

constexpr std::uint64_t kWeightSeed = 1;

double bound_of(const std::string& name, const torch::Tensor& tensor) {
  if (tensor.dim() == 1) return name.ends_with("weight") ? 0.5 : 0.1;
  return std::sqrt(3.0 * static_cast<double>(tensor.size(0)) / static_cast<double>(tensor.numel()));
}

}  // namespace

NetworkSpec bench_spec(const std::string& dataset, bool small) {
  NetworkSpec spec;
  spec.pixel_unshuffle = 1;
  spec.image_channels = 3;
  spec.noise_frequencies = "published";
  if (dataset == "cifar10") {
    spec.network_class = "song_unet";
    spec.noise_frequencies = "geometric";
    spec.image_size = 32;
    spec.model_channels = 128;
    spec.channel_mult = {2, 2, 2};
    spec.channel_mult_emb = 4;
    spec.num_blocks = 4;
    spec.attention_resolutions = {16};
    spec.label_dim = 10;
    spec.augment_dim = 9;
  } else {
    spec.image_size = 64;
    spec.model_channels = 192;
    spec.channel_mult = {1, 2, 3, 4};
    spec.channel_mult_emb = 4;
    spec.num_blocks = 3;
    spec.attention_resolutions = {32, 16, 8};
    spec.channels_per_head = 64;
    spec.label_dim = 1000;
  }
  if (small) {
    spec.image_size = 8;
    spec.model_channels = 16;
    spec.channels_per_head = 16;
    spec.channel_mult = {1, 2};
    spec.num_blocks = 1;
    spec.attention_resolutions = {4};
    spec.label_dim = 10;
  }
  return spec;
}

void fill_keyed(torch::nn::Module& module) {
  const torch::NoGradGuard no_grad;
  for (auto& item : module.named_parameters()) {
    fill_keyed_uniform(item.value(), kWeightSeed, item.key(), bound_of(item.key(), item.value()));
    if (item.value().dim() == 1 && item.key().ends_with("weight")) item.value().add_(1);
  }
}

std::unique_ptr<Denoiser> bench_network(const NetworkSpec& spec, float scale) {
  auto denoiser = make_denoiser(spec, kWeightSeed);
  fill_keyed(denoiser->module());
  const torch::NoGradGuard no_grad;
  for (torch::Tensor& parameter : denoiser->module().parameters()) parameter.mul_(scale);
  return denoiser;
}

}  // namespace onestep
