#include "worker/models/sd_unet_blocks.h"

namespace onestep {
namespace {

SdTransformerOptions transformer_options(const SdUnetConfig& config, std::int64_t channels, std::int64_t heads) {
  return {channels, config.cross_attention_dim, heads, config.norm_num_groups, config.use_linear_projection};
}

SdResnetOptions resnet_options(const SdUnetConfig& config, std::int64_t in, std::int64_t out) {
  return {in, out, 4 * config.block_out_channels.front(), config.norm_num_groups, config.norm_eps};
}

std::vector<SdTransformer> add_attentions(torch::nn::Module& block, const SdUnetConfig& config, const SdLevelOptions& level,
                                          std::int64_t count, const torch::TensorOptions& tensors) {
  std::vector<SdTransformer> attentions;
  if (level.heads == 0) return attentions;
  ModuleListBuilder list(block, "attentions");
  for (std::int64_t i = 0; i < count; ++i) {
    attentions.push_back(
        list.add(SdTransformer(transformer_options(config, level.out_channels, level.heads), tensors)));
  }
  return attentions;
}

}  // namespace

SdDownBlockImpl::SdDownBlockImpl(const SdUnetConfig& config, const SdLevelOptions& level,
                                 const torch::TensorOptions& tensors) {
  attentions_ = add_attentions(*this, config, level, config.layers_per_block, tensors);
  ModuleListBuilder resnets(*this, "resnets");
  for (std::int64_t i = 0; i < config.layers_per_block; ++i) {
    const std::int64_t in = i == 0 ? level.in_channels : level.out_channels;
    resnets_.push_back(resnets.add(SdResnet(resnet_options(config, in, level.out_channels), tensors)));
  }
  if (level.resample) {
    downsampler_ = ModuleListBuilder(*this, "downsamplers").add(SdDownsample(level.out_channels, false, tensors));
  }
}

torch::Tensor SdDownBlockImpl::forward(torch::Tensor x, const SdSignals& signals, std::vector<torch::Tensor>& skips) {
  for (std::size_t i = 0; i < resnets_.size(); ++i) {
    x = resnets_[i](x, signals.silu_time);
    if (!attentions_.empty()) x = attentions_[i](x, signals.text);
    skips.push_back(x);
  }
  if (!downsampler_.is_empty()) {
    x = downsampler_(x);
    skips.push_back(x);
  }
  return x;
}

SdMidBlockImpl::SdMidBlockImpl(const SdUnetConfig& config, const torch::TensorOptions& tensors) {
  const std::int64_t channels = config.block_out_channels.back();
  attention_ = ModuleListBuilder(*this, "attentions")
                   .add(SdTransformer(transformer_options(config, channels, config.num_heads.back()), tensors));
  ModuleListBuilder resnets(*this, "resnets");
  for (int i = 0; i < 2; ++i) {
    resnets_.push_back(resnets.add(SdResnet(resnet_options(config, channels, channels), tensors)));
  }
}

torch::Tensor SdMidBlockImpl::forward(const torch::Tensor& x, const SdSignals& signals) {
  const auto attended = attention_(resnets_[0](x, signals.silu_time), signals.text);
  return resnets_[1](attended, signals.silu_time);
}

SdUpBlockImpl::SdUpBlockImpl(const SdUnetConfig& config, const SdLevelOptions& level,
                             const std::vector<std::int64_t>& skip_channels, const torch::TensorOptions& tensors) {
  const auto layers = static_cast<std::int64_t>(skip_channels.size());
  attentions_ = add_attentions(*this, config, level, layers, tensors);
  ModuleListBuilder resnets(*this, "resnets");
  for (std::int64_t i = 0; i < layers; ++i) {
    const std::int64_t in = (i == 0 ? level.in_channels : level.out_channels) + skip_channels[i];
    resnets_.push_back(resnets.add(SdResnet(resnet_options(config, in, level.out_channels), tensors)));
  }
  if (level.resample) {
    upsampler_ = ModuleListBuilder(*this, "upsamplers").add(SdUpsample(level.out_channels, tensors));
  }
}

torch::Tensor SdUpBlockImpl::forward(torch::Tensor x, const SdSignals& signals, std::vector<torch::Tensor>& skips) {
  for (std::size_t i = 0; i < resnets_.size(); ++i) {
    x = resnets_[i](torch::cat({x, skips.back()}, 1), signals.silu_time);
    skips.pop_back();
    if (!attentions_.empty()) x = attentions_[i](x, signals.text);
  }
  if (!upsampler_.is_empty()) x = upsampler_(x, skips.back().size(2), skips.back().size(3));
  return x;
}

}  // namespace onestep
