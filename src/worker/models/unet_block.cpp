#include "worker/models/unet_block.h"

#include <algorithm>
#include <cmath>

#include "worker/tensors/fused_norm.h"
#include "worker/tensors/recompute.h"
#include "worker/tensors/unet_ops.h"

namespace onestep {
namespace {

// outer(f, f) / sum(f)^2, [1,1,f,f].
torch::Tensor filter_of(const std::vector<std::int64_t>& taps) {
  const auto f = torch::tensor(taps).to(torch::kFloat64);
  return (torch::outer(f, f) / f.sum().square()).to(torch::kFloat32).view({1, 1, f.size(0), f.size(0)});
}

// A 1x1 convolution as one matrix product over the pixels: faster than a convolution, forward and backward.
torch::Tensor pointwise(const torch::Tensor& weight, const torch::Tensor& bias, const torch::Tensor& x) {
  const auto pixels = x.permute({0, 2, 3, 1}).reshape({-1, x.size(1)});  // a view: memory is channels last
  const auto y = torch::addmm(bias, pixels, weight.flatten(1).t());
  return y.view({x.size(0), x.size(2), x.size(3), weight.size(0)}).permute({0, 3, 1, 2});
}

}  // namespace

std::int64_t norm_groups(std::int64_t channels) { return std::min<std::int64_t>(32, channels / 4); }

RawGroupNorm group_norm(std::int64_t channels, double epsilon) {
  return RawGroupNorm(norm_groups(channels), channels, epsilon, torch::kFloat32);
}

torch::Tensor normalize(RawGroupNorm& norm, const torch::Tensor& x, const torch::Tensor& scale_shift, bool silu) {
  if (!x.is_cpu()) {
    NormAct arguments{x, {}, {}, norm->weight, norm->bias, scale_shift, norm_groups(norm->weight.size(0)), norm->epsilon(), 1, silu};
    return norm_act(arguments).y;
  }
  const FusedNormOptions options{norm_groups(norm->weight.size(0)), norm->epsilon(), silu};
  if (x.scalar_type() == torch::kFloat32) return fused_norm(x, norm->weight, norm->bias, scale_shift, options);
  const auto single = [](const torch::Tensor& t) { return t.defined() ? t.to(torch::kFloat32) : t; };
  return fused_norm(single(x), single(norm->weight), single(norm->bias), single(scale_shift), options).to(x.scalar_type());
}

UnetConv unet_conv(std::int64_t in_channels, std::int64_t out_channels, std::int64_t kernel) {
  UnetConvOptions options;
  options.in_channels = in_channels;
  options.out_channels = out_channels;
  options.kernel = kernel;
  return UnetConv(options);
}

UnetConvImpl::UnetConvImpl(const UnetConvOptions& options) : options_(options) {
  if (options.kernel > 0) {
    weight = register_parameter(
        "weight", torch::zeros({options.out_channels, options.in_channels, options.kernel, options.kernel}));
    bias = register_parameter("bias", torch::zeros({options.out_channels}));
  }
  if (options.resampling != Resampling::kNone) {
    resample_filter = register_buffer("resample_filter", filter_of(options.filter));
  }
}

// Each channel by itself: up is the transposed convolution of stride 2 with 4 times the filter, down the one of stride 2.
// The filter [1,1] is nearest x2 up and the 2x2 mean down.
torch::Tensor UnetConvImpl::resample(const torch::Tensor& x, std::int64_t padding) const {
  const bool box = options_.filter.size() == 2;
  const std::int64_t channels = x.size(1);
  const auto per_channel = [&] { return resample_filter.to(x.scalar_type()).expand({channels, 1, -1, -1}); };
  switch (options_.resampling) {
    case Resampling::kNone: return x;
    case Resampling::kUp:
      if (box) return torch::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)});
      return torch::conv_transpose2d(x, 4 * per_channel(), {}, 2, padding, 0, channels);
    case Resampling::kDown:
      if (box) return torch::avg_pool2d(x, 2);
      return torch::conv2d(x, per_channel(), {}, 2, padding, 1, channels);
  }
  return x;
}

torch::Tensor UnetConvImpl::forward(const torch::Tensor& x) {
  const auto filter_padding = static_cast<std::int64_t>((options_.filter.size() - 1) / 2);
  const std::int64_t padding = options_.kernel / 2;
  if (options_.fused) {
    const auto y = torch::conv2d(x, weight, {}, 1, padding + filter_padding);
    return resample(y, 0) + bias.view({1, -1, 1, 1});
  }
  const auto h = resample(x, filter_padding);
  if (options_.kernel == 0) return h;
  if (options_.kernel == 1) return pointwise(weight, bias, h);
  return torch::conv2d(h, weight, bias, 1, padding);
}

UnetBlockImpl::UnetBlockImpl(const UnetBlockOptions& options) : options_(options) {
  const std::int64_t in = options.in_channels, out = options.out_channels;
  const bool resamples = options.resampling != Resampling::kNone;
  UnetConvOptions resampling;
  resampling.in_channels = in;
  resampling.out_channels = out;
  resampling.resampling = options.resampling;
  resampling.filter = options.filter;
  norm0 = register_module("norm0", group_norm(in, options.epsilon));
  conv0 = register_module("conv0", UnetConv(resampling));
  affine = register_module("affine", RawLinear(options.emb_channels, options.adaptive_scale ? 2 * out : out, /*with_bias=*/true, torch::kFloat32));
  norm1 = register_module("norm1", group_norm(out, options.epsilon));
  conv1 = register_module("conv1", unet_conv(out, out, 3));
  if (in != out || resamples) {
    resampling.kernel = in != out || options.always_project_resampled ? 1 : 0;
    skip = register_module("skip", UnetConv(resampling));
  }
  if (options.num_heads > 0) {
    norm2 = register_module("norm2", group_norm(out, options.epsilon));
    qkv = register_module("qkv", unet_conv(out, 3 * out, 1));
    proj = register_module("proj", unet_conv(out, out, 1));
  }
}

// Recomputing adds the gradients of x in the order in which the plain graph does: the skip's, then the convolutions'. Each
// must therefore leave the block by itself, which is why x enters it twice.
torch::Tensor UnetBlockImpl::forward(const torch::Tensor& x, const torch::Tensor& emb) {
  if (!recompute_ || !torch::GradMode::is_enabled()) return compute(x, x, emb);
  return recomputed([this](const std::vector<torch::Tensor>& in) { return compute(in[0], in[1], in[2]); }, {x, x, emb},
                    parameters());
}

torch::Tensor UnetBlockImpl::scaled_sum(const torch::Tensor& a, const torch::Tensor& b) const {
  return options_.skip_scale == 1 ? a + b : (a + b) * options_.skip_scale;
}

torch::Tensor UnetBlockImpl::compute(const torch::Tensor& x_skip, const torch::Tensor& x, const torch::Tensor& emb) {
  if (grid_kernels_ || !x.is_cpu()) return compute_on_grid(x_skip, x, emb);
  torch::Tensor h = conv0(normalize(norm0, x, {}, true));
  if (options_.adaptive_scale) {
    h = conv1(normalize(norm1, h, affine(emb), true));
  } else {
    h = conv1(normalize(norm1, h + affine(emb).unsqueeze(-1).unsqueeze(-1), {}, true));
  }
  const auto y = scaled_sum(skip.is_empty() ? x_skip : skip(x_skip), h);
  return options_.num_heads > 0 ? scaled_sum(y, attend(y)) : y;
}

// Self-attention over the pixels; qkv's channels are laid out [head][channel in head][q, k, v].
torch::Tensor UnetBlockImpl::attend(const torch::Tensor& x) {
  const std::int64_t batch = x.size(0), channels = x.size(1), pixels = x.size(2) * x.size(3);
  const std::int64_t heads = options_.num_heads, width = channels / heads;
  // The rows of the weight reordered to [q, k, v][head][channel], so that each part's channels lie together.
  const auto rows = [&](const torch::Tensor& parameter) {
    return parameter.view({heads, width, 3, -1}).permute({2, 0, 1, 3}).reshape({3 * channels, -1});
  };
  const auto packed = pointwise(rows(qkv->weight), rows(qkv->bias).flatten(), normalize(norm2, x, {}, false));
  const auto parts = packed.permute({0, 2, 3, 1}).view({batch, pixels, 3, heads, width}).unbind(2);
  const auto of_heads = [&](const torch::Tensor& part) {  // (B*heads, pixels, width)
    return part.transpose(1, 2).reshape({batch * heads, pixels, width});
  };
  const auto q = of_heads(parts[0]), k = of_heads(parts[1]), v = of_heads(parts[2]);
  const auto scores = torch::bmm(q, (k / std::sqrt(static_cast<double>(width))).transpose(1, 2));
  // Softmax over the keys, in fp32 whatever the weights are; (B*heads, pixels, pixels).
  const auto attention = torch::softmax(scores, 2, torch::kFloat32).to(scores.scalar_type());
  const auto mixed = torch::bmm(attention, v);  // (B*heads, pixels, width)
  const auto joined = mixed.view({batch, heads, pixels, width}).permute({0, 1, 3, 2}).reshape(x.sizes());
  return proj(joined.contiguous(torch::MemoryFormat::ChannelsLast));
}

}  // namespace onestep
