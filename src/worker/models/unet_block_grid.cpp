// The residual block on the device's kernels: a convolution's bias joins the norm behind it or the residual sum, so that what is left between two
// convolutions is one pass over memory.
#include <vector>

#include "worker/models/unet_block.h"
#include "worker/tensors/unet_ops.h"

namespace onestep {
namespace {

torch::Tensor pixels_of(const torch::Tensor& x) { return x.permute({0, 2, 3, 1}).reshape({-1, x.size(1)}); }  // a view of channels-last memory

torch::Tensor picture_of(const torch::Tensor& pixels, const torch::Tensor& like) {
  return pixels.view({like.size(0), like.size(2), like.size(3), pixels.size(1)}).permute({0, 3, 1, 2});
}

NormAct norm_of(RawGroupNorm& norm, const torch::Tensor& x, bool silu) {
  NormAct arguments;
  arguments.x = x;
  arguments.weight = norm->weight;
  arguments.bias = norm->bias;
  arguments.groups = norm_groups(norm->weight.size(0));
  arguments.epsilon = norm->epsilon();
  arguments.silu = silu;
  return arguments;
}

}  // namespace

torch::Tensor UnetConvImpl::forward_without_bias(const torch::Tensor& x) {
  const auto taps = static_cast<std::int64_t>(options_.filter.size());
  const auto h = options_.resampling == Resampling::kNone ? x : resample2(x, {options_.resampling == Resampling::kUp, taps, (taps - 1) / 2});
  if (options_.kernel == 0) return h;
  if (options_.kernel == 1) return picture_of(torch::mm(pixels_of(h), weight.flatten(1).t()), h);
  return torch::conv2d(h, weight, {}, 1, options_.kernel / 2);
}

torch::Tensor UnetBlockImpl::compute_on_grid(const torch::Tensor& x_skip, const torch::Tensor& x, const torch::Tensor& emb) {
  NormAct second = norm_of(norm1, conv0->forward_without_bias(norm_act(norm_of(norm0, x, true)).y), true);
  if (options_.adaptive_scale) {
    second.pre = conv0->bias;
    second.scale_shift = affine(emb);
  } else {
    second.pre = affine(emb) + conv0->bias;
  }
  const auto h = conv1->forward_without_bias(norm_act(second).y);
  const bool projects = !skip.is_empty() && skip->bias.defined();
  const auto identity = skip.is_empty() ? x_skip : skip->forward_without_bias(x_skip);
  const auto bias = projects ? conv1->bias + skip->bias : conv1->bias;
  if (options_.num_heads == 0) return residual_sum(identity, h, bias, options_.skip_scale);
  NormAct third = norm_of(norm2, h, false);
  third.residual = identity;
  third.pre = bias;
  third.sum_scale = options_.skip_scale;
  const auto [normalized, y] = norm_act(third);
  return residual_sum(y, proj->forward_without_bias(attention_on_grid(normalized)), proj->bias, options_.skip_scale);
}

// As attend(): qkv's channels are laid out [head][channel in head][q, k, v].
torch::Tensor UnetBlockImpl::attention_on_grid(const torch::Tensor& normalized) {
  const std::int64_t batch = normalized.size(0), channels = normalized.size(1), pixels = normalized.size(2) * normalized.size(3);
  const std::int64_t heads = options_.num_heads, width = channels / heads;
  // Rows of the weight reordered to [q, k, v][head][channel].
  const auto rows = [&](const torch::Tensor& parameter) {
    return parameter.view({heads, width, 3, -1}).permute({2, 0, 1, 3}).reshape({3 * channels, -1});
  };
  const auto packed = torch::addmm(rows(qkv->bias).flatten(), pixels_of(normalized), rows(qkv->weight).t());  // (B*pixels, 3*C)
  const auto parts = packed.view({batch, pixels, 3, heads, width}).permute({2, 0, 3, 1, 4}).unbind(0);         // (B, heads, pixels, width) each
  const auto mixed = at::scaled_dot_product_attention(parts[0], parts[1], parts[2]);
  // ATen's reshape of the heads back: (B, C, H, W) with the channels [head][channel].
  return picture_of(mixed.permute({0, 2, 1, 3}).reshape({batch * pixels, channels}), normalized);
}

}  // namespace onestep
