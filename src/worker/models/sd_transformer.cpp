#include "worker/models/sd_transformer.h"

#include <vector>

#include "worker/tensors/recompute.h"

namespace onestep {
namespace {

constexpr double kLayerNormEpsilon = 1e-5;
constexpr double kTransformerNormEpsilon = 1e-6;  // the resnets around it use 1e-5
constexpr std::int64_t kFeedForwardFactor = 4;

}  // namespace

SdAttentionImpl::SdAttentionImpl(const SdAttentionOptions& options, const torch::TensorOptions& tensors)
    : heads_(options.heads) {
  if (options.norm_groups > 0) {
    group_norm = register_module(
        "group_norm", RawGroupNorm(options.norm_groups, options.channels, kTransformerNormEpsilon, tensors));
  }
  const auto make = [&](const char* name, std::int64_t in) {
    return register_module(name, RawLinear(in, options.channels, options.qkv_bias, tensors));
  };
  to_q = make("to_q", options.channels);
  to_k = make("to_k", options.context_channels);
  to_v = make("to_v", options.context_channels);
  // to_out.1 is a dropout without parameters.
  out_ = ModuleListBuilder(*this, "to_out").add(RawLinear(options.channels, options.channels, true, tensors));
}

torch::Tensor SdAttentionImpl::forward(const torch::Tensor& x, const torch::Tensor& context) {
  const auto of_heads = [this](const torch::Tensor& t) {  // (B, heads, N, width)
    return t.view({t.size(0), t.size(1), heads_, t.size(2) / heads_}).transpose(1, 2);
  };
  const auto mixed = torch::scaled_dot_product_attention(of_heads(to_q(x)), of_heads(to_k(context)),
                                                         of_heads(to_v(context)));
  return out_(mixed.transpose(1, 2).reshape(x.sizes()));
}

torch::Tensor SdAttentionImpl::forward_image(const torch::Tensor& x) {
  const std::int64_t batch = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
  const auto pixels = group_norm(x).permute({0, 2, 3, 1}).reshape({batch, height * width, channels});
  return forward(pixels, pixels).view({batch, height, width, channels}).permute({0, 3, 1, 2}) + x;
}

SdFeedForwardImpl::SdFeedForwardImpl(std::int64_t channels, const torch::TensorOptions& tensors) {
  const std::int64_t inner = kFeedForwardFactor * channels;
  auto net = register_module("net", std::make_shared<torch::nn::Module>());
  auto geglu = net->register_module("0", std::make_shared<torch::nn::Module>());
  in_ = geglu->register_module("proj", RawLinear(channels, 2 * inner, true, tensors));
  out_ = net->register_module("2", RawLinear(inner, channels, true, tensors));
}

torch::Tensor SdFeedForwardImpl::forward(const torch::Tensor& x) {
  const auto halves = in_(x).chunk(2, -1);
  return out_(halves[0] * torch::gelu(halves[1]));
}

SdTransformerBlockImpl::SdTransformerBlockImpl(std::int64_t channels, std::int64_t context_channels, std::int64_t heads,
                                               const torch::TensorOptions& tensors) {
  const auto norm = [&](const char* name) {
    return register_module(name, RawLayerNorm(channels, kLayerNormEpsilon, tensors));
  };
  norm1 = norm("norm1");
  attn1 = register_module("attn1", SdAttention(SdAttentionOptions{channels, channels, heads}, tensors));
  norm2 = norm("norm2");
  attn2 = register_module("attn2", SdAttention(SdAttentionOptions{channels, context_channels, heads}, tensors));
  norm3 = norm("norm3");
  ff = register_module("ff", SdFeedForward(channels, tensors));
}

torch::Tensor SdTransformerBlockImpl::forward(torch::Tensor x, const torch::Tensor& context) {
  const auto normed = norm1(x);
  x = attn1(normed, normed) + x;
  x = attn2(norm2(x), context) + x;
  return ff(norm3(x)) + x;
}

SdTransformerImpl::SdTransformerImpl(const SdTransformerOptions& options, const torch::TensorOptions& tensors) {
  const std::int64_t channels = options.channels;
  norm = register_module("norm", RawGroupNorm(options.groups, channels, kTransformerNormEpsilon, tensors));
  const auto project = [&](const char* name, RawLinear& linear, RawConv2d& convolution) {
    if (options.linear_projection) {
      linear = register_module(name, RawLinear(channels, channels, true, tensors));
    } else {
      convolution = register_module(name, RawConv2d(RawConvOptions{channels, channels, 1, 1, 0}, tensors));
    }
  };
  project("proj_in", linear_in_, conv_in_);
  block_ = ModuleListBuilder(*this, "transformer_blocks")
               .add(SdTransformerBlock(channels, options.context_channels, options.heads, tensors));
  project("proj_out", linear_out_, conv_out_);
}

// A 1x1 convolution of [B,C,H,W] is a linear map of the pixels [B,HW,C].
torch::Tensor SdTransformerImpl::project(RawLinear& linear, RawConv2d& convolution, const torch::Tensor& pixels) {
  if (!linear.is_empty()) return linear(pixels);
  return torch::linear(pixels, convolution->weight.flatten(1), convolution->bias);
}

// x enters twice, its skip in front: the order in which the plain graph adds their gradients.
torch::Tensor SdTransformerImpl::forward(const torch::Tensor& x, const torch::Tensor& context) {
  if (!recompute_ || !torch::GradMode::is_enabled()) return compute(x, x, context);
  return recomputed([this](const std::vector<torch::Tensor>& in) { return compute(in[0], in[1], in[2]); }, {x, x, context},
                    parameters());
}

torch::Tensor SdTransformerImpl::compute(const torch::Tensor& x_skip, const torch::Tensor& x, const torch::Tensor& context) {
  const std::int64_t batch = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
  auto pixels = norm(x).permute({0, 2, 3, 1}).reshape({batch, height * width, channels});
  pixels = project(linear_in_, conv_in_, pixels);
  pixels = block_(pixels, context);
  pixels = project(linear_out_, conv_out_, pixels);
  return pixels.view({batch, height, width, channels}).permute({0, 3, 1, 2}) + x_skip;
}

}  // namespace onestep
