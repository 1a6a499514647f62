#include "worker/models/autoencoder_kl.h"

namespace onestep {
namespace {

constexpr double kEpsilon = 1e-6;
constexpr double kMinLogvar = -30, kMaxLogvar = 20;

SdResnet resnet(const AutoencoderKlConfig& config, std::int64_t in, std::int64_t out, const torch::TensorOptions& tensors) {
  return SdResnet(SdResnetOptions{in, out, 0, config.norm_num_groups, kEpsilon}, tensors);
}

std::vector<SdResnet> add_resnets(torch::nn::Module& block, const AutoencoderKlConfig& config, std::int64_t count,
                                  std::int64_t in, std::int64_t out, const torch::TensorOptions& tensors) {
  std::vector<SdResnet> resnets;
  ModuleListBuilder list(block, "resnets");
  for (std::int64_t i = 0; i < count; ++i) {
    resnets.push_back(list.add(resnet(config, i == 0 ? in : out, out, tensors)));
  }
  return resnets;
}

RawConv2d conv(std::int64_t in, std::int64_t out, std::int64_t kernel, const torch::TensorOptions& tensors) {
  return RawConv2d(RawConvOptions{in, out, kernel, 1, kernel / 2}, tensors);
}

}  // namespace

VaeMidBlockImpl::VaeMidBlockImpl(const AutoencoderKlConfig& config, const torch::TensorOptions& tensors) {
  const std::int64_t channels = config.block_out_channels.back();
  const SdAttentionOptions options{channels, channels, 1, /*qkv_bias=*/true, config.norm_num_groups};
  attention_ = ModuleListBuilder(*this, "attentions").add(SdAttention(options, tensors));
  resnets_ = add_resnets(*this, config, 2, channels, channels, tensors);
}

torch::Tensor VaeMidBlockImpl::forward(const torch::Tensor& x) {
  return resnets_[1](attention_->forward_image(resnets_[0](x, torch::Tensor())), torch::Tensor());
}

VaeEncoderImpl::VaeEncoderImpl(const AutoencoderKlConfig& config, const torch::TensorOptions& tensors) {
  const auto& widths = config.block_out_channels;
  conv_in = register_module("conv_in", conv(config.in_channels, widths.front(), 3, tensors));
  ModuleListBuilder down(*this, "down_blocks");
  for (std::size_t i = 0; i < widths.size(); ++i) {
    auto block = down.add(torch::nn::ModuleHolder<torch::nn::Module>(std::make_shared<torch::nn::Module>()));
    Level level;
    level.resnets = add_resnets(*block, config, config.layers_per_block, widths[i == 0 ? 0 : i - 1], widths[i], tensors);
    if (i + 1 < widths.size()) {
      level.downsampler = ModuleListBuilder(*block, "downsamplers").add(SdDownsample(widths[i], true, tensors));
    }
    levels_.push_back(level);
  }
  mid_block = register_module("mid_block", VaeMidBlock(config, tensors));
  conv_norm_out =
      register_module("conv_norm_out", RawGroupNorm(config.norm_num_groups, widths.back(), kEpsilon, tensors));
  conv_out = register_module("conv_out", conv(widths.back(), 2 * config.latent_channels, 3, tensors));
}

torch::Tensor VaeEncoderImpl::forward(const torch::Tensor& images) {
  auto x = conv_in(images.contiguous(torch::MemoryFormat::ChannelsLast));
  for (Level& level : levels_) {
    for (SdResnet& block : level.resnets) x = block(x, torch::Tensor());
    if (!level.downsampler.is_empty()) x = level.downsampler(x);
  }
  return conv_out(conv_norm_out->forward_silu(mid_block(x)));
}

VaeDecoderImpl::VaeDecoderImpl(const AutoencoderKlConfig& config, const torch::TensorOptions& tensors) {
  const auto& widths = config.block_out_channels;
  conv_in = register_module("conv_in", conv(config.latent_channels, widths.back(), 3, tensors));
  ModuleListBuilder up(*this, "up_blocks");
  std::int64_t in = widths.back();
  for (std::size_t i = widths.size(); i-- > 0;) {
    auto block = up.add(torch::nn::ModuleHolder<torch::nn::Module>(std::make_shared<torch::nn::Module>()));
    Level level;
    level.resnets = add_resnets(*block, config, config.layers_per_block + 1, in, widths[i], tensors);
    if (i > 0) level.upsampler = ModuleListBuilder(*block, "upsamplers").add(SdUpsample(widths[i], tensors));
    in = widths[i];
    levels_.push_back(level);
  }
  mid_block = register_module("mid_block", VaeMidBlock(config, tensors));
  conv_norm_out =
      register_module("conv_norm_out", RawGroupNorm(config.norm_num_groups, widths.front(), kEpsilon, tensors));
  conv_out = register_module("conv_out", conv(widths.front(), config.out_channels, 3, tensors));
}

torch::Tensor VaeDecoderImpl::forward(const torch::Tensor& latents) {
  auto x = mid_block(conv_in(latents.contiguous(torch::MemoryFormat::ChannelsLast)));
  for (Level& level : levels_) {
    for (SdResnet& block : level.resnets) x = block(x, torch::Tensor());
    if (!level.upsampler.is_empty()) x = level.upsampler(x, 2 * x.size(2), 2 * x.size(3));
  }
  return conv_out(conv_norm_out->forward_silu(x));
}

AutoencoderKlImpl::AutoencoderKlImpl(const AutoencoderKlConfig& config, const torch::TensorOptions& tensors)
    : config_(config) {
  const std::int64_t latent = config.latent_channels;
  encoder = register_module("encoder", VaeEncoder(config, tensors));
  decoder = register_module("decoder", VaeDecoder(config, tensors));
  quant_conv = register_module("quant_conv", conv(2 * latent, 2 * latent, 1, tensors));
  post_quant_conv = register_module("post_quant_conv", conv(latent, latent, 1, tensors));
}

LatentPosterior AutoencoderKlImpl::encode(const torch::Tensor& images) {
  const auto moments = quant_conv(encoder(images)).chunk(2, 1);
  return {moments[0], moments[1].clamp(kMinLogvar, kMaxLogvar)};
}

void AutoencoderKlImpl::recompute_in_backward(bool on) {
  for (const auto& child : modules(/*include_self=*/false)) {
    if (auto* block = child->as<SdResnetImpl>()) block->recompute_in_backward(on);
  }
}

torch::Tensor AutoencoderKlImpl::decode(const torch::Tensor& z) { return decoder(post_quant_conv(z)); }

}  // namespace onestep
