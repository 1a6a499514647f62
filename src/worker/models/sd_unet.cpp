#include "worker/models/sd_unet.h"

#include <cmath>

namespace onestep {

SdUnetImpl::SdUnetImpl(const SdUnetConfig& config, const torch::TensorOptions& tensors) : config_(config) {
  const auto& widths = config.block_out_channels;
  const std::size_t levels = widths.size();
  const std::int64_t time_channels = 4 * widths.front();
  conv_in = register_module("conv_in", RawConv2d(RawConvOptions{config.in_channels, widths.front()}, tensors));
  auto time_embedding = register_module("time_embedding", std::make_shared<torch::nn::Module>());
  time_linear_1_ = time_embedding->register_module("linear_1", RawLinear(widths.front(), time_channels, true, tensors));
  time_linear_2_ = time_embedding->register_module("linear_2", RawLinear(time_channels, time_channels, true, tensors));

  // Every output on the way down is a skip, conv_in's too.
  ModuleListBuilder down(*this, "down_blocks");
  std::vector<std::int64_t> skip_channels = {widths.front()};
  for (std::size_t i = 0; i < levels; ++i) {
    const bool last = i + 1 == levels;
    const std::int64_t in = i == 0 ? widths.front() : widths[i - 1];
    const SdLevelOptions level{in, widths[i], config.down_attention[i] ? config.num_heads[i] : 0, !last};
    down_blocks_.push_back(down.add(SdDownBlock(config, level, tensors)));
    skip_channels.insert(skip_channels.end(), config.layers_per_block + (last ? 0 : 1), widths[i]);
  }
  ModuleListBuilder up(*this, "up_blocks");
  for (std::size_t i = 0; i < levels; ++i) {
    const std::size_t mirrored = levels - 1 - i;
    const std::int64_t in = i == 0 ? widths.back() : widths[mirrored + 1];
    const SdLevelOptions level{in, widths[mirrored], config.up_attention[i] ? config.num_heads[mirrored] : 0, mirrored > 0};
    std::vector<std::int64_t> taken;
    for (std::int64_t n = 0; n <= config.layers_per_block; ++n) {
      taken.push_back(skip_channels.back());
      skip_channels.pop_back();
    }
    up_blocks_.push_back(up.add(SdUpBlock(config, level, taken, tensors)));
  }
  mid_block = register_module("mid_block", SdMidBlock(config, tensors));
  conv_norm_out =
      register_module("conv_norm_out", RawGroupNorm(config.norm_num_groups, widths.front(), config.norm_eps, tensors));
  conv_out = register_module("conv_out", RawConv2d(RawConvOptions{widths.front(), config.out_channels}, tensors));
}

// silu(linear_2(silu(linear_1([cos, sin] of t / 10000^(i / half))))): the SiLU that every resnet puts before its projection is taken once.
torch::Tensor SdUnetImpl::embed_time(const torch::Tensor& t) {
  const std::int64_t half = config_.block_out_channels.front() / 2;
  const auto i = torch::arange(half, t.options().dtype(torch::kFloat32));
  const auto frequencies = torch::exp(-std::log(10000.0) * i / static_cast<double>(half));
  const auto angles = t.to(torch::kFloat32).unsqueeze(1) * frequencies;
  const auto waves = torch::cat({angles.cos(), angles.sin()}, 1).to(time_linear_1_->weight.dtype());
  return torch::silu(time_linear_2_(torch::silu(time_linear_1_(waves))));
}

void SdUnetImpl::recompute_in_backward(bool on) {
  for (const auto& child : modules(/*include_self=*/false)) {
    if (auto* block = child->as<SdResnetImpl>()) block->recompute_in_backward(on);
    if (auto* block = child->as<SdTransformerImpl>()) block->recompute_in_backward(on);
  }
}

torch::Tensor SdUnetImpl::encode(const torch::Tensor& x, const SdSignals& signals, std::vector<torch::Tensor>& skips) {
  auto h = conv_in(x.contiguous(torch::MemoryFormat::ChannelsLast));
  skips.push_back(h);
  for (auto& block : down_blocks_) h = block(h, signals, skips);
  return mid_block(h, signals);
}

torch::Tensor SdUnetImpl::bottleneck(const torch::Tensor& x, const torch::Tensor& t, const torch::Tensor& text) {
  std::vector<torch::Tensor> skips;
  return encode(x, {embed_time(t), text}, skips);
}

torch::Tensor SdUnetImpl::forward(const torch::Tensor& x, const torch::Tensor& t, const torch::Tensor& text) {
  const SdSignals signals{embed_time(t), text};
  std::vector<torch::Tensor> skips;
  auto h = encode(x, signals, skips);
  for (auto& block : up_blocks_) h = block(h, signals, skips);
  return conv_out(conv_norm_out->forward_silu(h));
}

}  // namespace onestep
