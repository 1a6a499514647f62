#include "worker/models/adm_unet.h"

#include <algorithm>
#include <cmath>

#include "worker/models/initialize.h"
#include "worker/tensors/fused_norm.h"

namespace onestep {
namespace {

constexpr double kGroupNormEpsilon = 1e-5;

std::int64_t groups_of(std::int64_t channels) { return std::min<std::int64_t>(32, channels / 4); }

torch::nn::GroupNorm group_norm(std::int64_t channels) {
  return torch::nn::GroupNorm(
      torch::nn::GroupNormOptions(groups_of(channels), channels).eps(kGroupNormEpsilon));
}

torch::nn::Conv2d conv(std::int64_t in, std::int64_t out, std::int64_t kernel) {
  return torch::nn::Conv2d(torch::nn::Conv2dOptions(in, out, kernel).padding(kernel / 2));
}

torch::Tensor normalize(torch::nn::GroupNorm& norm, const torch::Tensor& x,
                        const torch::Tensor& scale_shift, bool silu) {
  return fused_norm(x, norm->weight, norm->bias, scale_shift,
                    {groups_of(norm->weight.size(0)), kGroupNormEpsilon, silu});
}

// A 1x1 convolution as one matrix product over the pixels: faster than a convolution, forward and backward.
torch::Tensor pointwise(const torch::Tensor& weight, const torch::Tensor& bias, const torch::Tensor& x) {
  const auto pixels = x.permute({0, 2, 3, 1}).reshape({-1, x.size(1)});  // a view: memory is channels last
  const auto y = torch::addmm(bias, pixels, weight.flatten(1).t());
  return y.view({x.size(0), x.size(2), x.size(3), weight.size(0)}).permute({0, 3, 1, 2});
}

torch::Tensor pointwise(torch::nn::Conv2d& convolution, const torch::Tensor& x) {
  return pointwise(convolution->weight, convolution->bias, x);
}

}  // namespace

AdmBlockImpl::AdmBlockImpl(const AdmBlockOptions& options) : options_(options) {
  norm0 = register_module("norm0", group_norm(options.in_channels));
  conv0 = register_module("conv0", conv(options.in_channels, options.out_channels, 3));
  affine = register_module("affine", torch::nn::Linear(options.emb_channels, 2 * options.out_channels));
  norm1 = register_module("norm1", group_norm(options.out_channels));
  conv1 = register_module("conv1", conv(options.out_channels, options.out_channels, 3));
  if (options.in_channels != options.out_channels) {
    skip = register_module("skip", conv(options.in_channels, options.out_channels, 1));
  }
  if (options.attention) {
    heads_ = options.out_channels / options.channels_per_head;
    norm2 = register_module("norm2", group_norm(options.out_channels));
    qkv = register_module("qkv", conv(options.out_channels, 3 * options.out_channels, 1));
    proj = register_module("proj", conv(options.out_channels, options.out_channels, 1));
  }
}

// Filter [1,1]: nearest x2 up, 2x2 mean down.
torch::Tensor AdmBlockImpl::resample(const torch::Tensor& x) const {
  if (options_.up) return torch::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)});
  if (options_.down) return torch::avg_pool2d(x, 2);
  return x;
}

torch::Tensor AdmBlockImpl::forward(torch::Tensor x, const torch::Tensor& emb) {
  torch::Tensor h = conv0(resample(normalize(norm0, x, {}, true)));
  h = conv1(normalize(norm1, h, affine(emb), true));
  x = resample(x);
  if (!skip.is_empty()) x = pointwise(skip, x);
  x = x + h;
  return heads_ > 0 ? x + attend(x) : x;
}

// Self-attention over the pixels; qkv's channels are laid out [head][channel in head][q, k, v].
torch::Tensor AdmBlockImpl::attend(const torch::Tensor& x) {
  const std::int64_t batch = x.size(0), channels = x.size(1), pixels = x.size(2) * x.size(3);
  const std::int64_t width = channels / heads_;
  // The rows of the weight reordered to [q, k, v][head][channel], so that each part's channels lie together.
  const auto rows = [&](const torch::Tensor& parameter) {
    return parameter.view({heads_, width, 3, -1}).permute({2, 0, 1, 3}).reshape({3 * channels, -1});
  };
  const auto packed = pointwise(rows(qkv->weight), rows(qkv->bias).flatten(), normalize(norm2, x, {}, false));
  const auto parts = packed.permute({0, 2, 3, 1}).view({batch, pixels, 3, heads_, width}).unbind(2);
  const auto of_heads = [&](const torch::Tensor& part) {  // (B*heads, pixels, width)
    return part.transpose(1, 2).reshape({batch * heads_, pixels, width});
  };
  const auto q = of_heads(parts[0]), k = of_heads(parts[1]), v = of_heads(parts[2]);
  const auto scores = torch::bmm(q, (k / std::sqrt(static_cast<double>(width))).transpose(1, 2));
  const auto mixed = torch::bmm(torch::softmax(scores, 2), v);  // softmax over the keys; (B*heads, pixels, width)
  const auto joined = mixed.view({batch, heads_, pixels, width}).permute({0, 1, 3, 2}).reshape(x.sizes());
  return pointwise(proj, joined.contiguous(torch::MemoryFormat::ChannelsLast));
}

AdmUnetImpl::AdmUnetImpl(const NetworkSpec& spec) : spec_(spec) {
  const std::int64_t emb = spec.model_channels * spec.channel_mult_emb;
  const std::int64_t half = spec.model_channels / 2;
  const auto i = torch::arange(half, torch::kFloat64);
  frequencies_ = (spec.noise_frequencies == "geometric"
                      ? torch::pow(100.0, i / static_cast<double>(half - 1))
                      : torch::pow(10000.0, -i / static_cast<double>(half)))
                     .to(torch::kFloat32);
  map_layer0 = register_module("map_layer0", torch::nn::Linear(spec.model_channels, emb));
  map_layer1 = register_module("map_layer1", torch::nn::Linear(emb, emb));
  if (spec.label_dim > 0) {
    map_label = register_module(
        "map_label", torch::nn::Linear(torch::nn::LinearOptions(spec.label_dim, emb).bias(false)));
  }

  const std::int64_t unshuffle = spec.pixel_unshuffle;
  const std::int64_t io_channels = spec.image_channels * unshuffle * unshuffle;
  const std::int64_t base = spec.image_size / unshuffle;
  auto enc = register_module("enc", std::make_shared<torch::nn::Module>());
  auto dec = register_module("dec", std::make_shared<torch::nn::Module>());
  const auto attends = [&spec](std::int64_t resolution) {
    const auto& list = spec.attention_resolutions;
    return std::find(list.begin(), list.end(), resolution) != list.end();
  };
  const auto name_of = [](std::int64_t resolution, const std::string& what) {
    return std::to_string(resolution) + "x" + std::to_string(resolution) + "_" + what;
  };
  AdmBlockOptions options;
  options.emb_channels = emb;
  options.channels_per_head = spec.channels_per_head;
  const auto add_encoder = [&](const std::string& name) {
    encoder_.push_back(enc->register_module(name, AdmBlock(options)));
  };
  const auto add_decoder = [&](const std::string& name, bool joins_skip) {
    decoder_.push_back({dec->register_module(name, AdmBlock(options)), joins_skip});
  };

  // Encoder: every entry's output is kept for the decoder.
  const auto levels = static_cast<std::int64_t>(spec.channel_mult.size());
  std::vector<std::int64_t> skip_channels;
  std::int64_t channels = 0;
  for (std::int64_t level = 0; level < levels; ++level) {
    const std::int64_t resolution = base >> level;
    if (level == 0) {
      channels = spec.model_channels * spec.channel_mult[0];
      first_conv_ = enc->register_module(name_of(resolution, "conv"), conv(io_channels, channels, 3));
    } else {
      options.in_channels = options.out_channels = channels;
      options.down = true;
      options.attention = false;
      add_encoder(name_of(resolution, "down"));
      options.down = false;
    }
    skip_channels.push_back(channels);
    for (std::int64_t n = 0; n < spec.num_blocks; ++n) {
      options.in_channels = channels;
      options.out_channels = channels = spec.model_channels * spec.channel_mult[level];
      options.attention = attends(resolution);
      add_encoder(name_of(resolution, "block" + std::to_string(n)));
      skip_channels.push_back(channels);
    }
  }
  // Decoder: one more block a level; its blocks take the encoder's outputs in reverse.
  for (std::int64_t level = levels - 1; level >= 0; --level) {
    const std::int64_t resolution = base >> level;
    options.in_channels = options.out_channels = channels;
    if (level == levels - 1) {
      options.attention = true;
      add_decoder(name_of(resolution, "in0"), false);
      options.attention = false;
      add_decoder(name_of(resolution, "in1"), false);
    } else {
      options.up = true;
      options.attention = false;
      add_decoder(name_of(resolution, "up"), false);
      options.up = false;
    }
    for (std::int64_t n = 0; n <= spec.num_blocks; ++n) {
      options.in_channels = channels + skip_channels.back();
      skip_channels.pop_back();
      options.out_channels = channels = spec.model_channels * spec.channel_mult[level];
      options.attention = attends(resolution);
      add_decoder(name_of(resolution, "block" + std::to_string(n)), true);
    }
  }
  out_norm = register_module("out_norm", group_norm(channels));
  out_conv = register_module("out_conv", conv(channels, io_channels, 3));
}

// emb = SiLU(layer1(SiLU(layer0(cos, sin of c_noise))) + label).
torch::Tensor AdmUnetImpl::embed(const torch::Tensor& c_noise, const torch::Tensor& labels) {
  const auto angles = c_noise.unsqueeze(1) * frequencies_;
  auto emb = map_layer1(torch::silu(map_layer0(torch::cat({angles.cos(), angles.sin()}, 1))));
  if (!map_label.is_empty() && labels.defined()) emb = emb + map_label(labels);
  return torch::silu(emb);
}

torch::Tensor AdmUnetImpl::forward(const torch::Tensor& x, const torch::Tensor& c_noise,
                                   const torch::Tensor& labels) {
  const torch::Tensor emb = embed(c_noise, labels);
  torch::Tensor h = spec_.pixel_unshuffle > 1 ? torch::pixel_unshuffle(x, spec_.pixel_unshuffle) : x;
  h = first_conv_(h.contiguous(torch::MemoryFormat::ChannelsLast));
  std::vector<torch::Tensor> skips = {h};
  for (auto& block : encoder_) {
    h = block(h, emb);
    skips.push_back(h);
  }
  for (auto& step : decoder_) {
    if (step.joins_skip) {
      h = torch::cat({h, skips.back()}, 1);
      skips.pop_back();
    }
    h = step.block(h, emb);
  }
  h = out_conv(normalize(out_norm, h, {}, true));
  return spec_.pixel_unshuffle > 1 ? torch::pixel_shuffle(h, spec_.pixel_unshuffle) : h;
}

void AdmUnetImpl::initialize(std::uint64_t seed, const std::string& prefix) {
  torch::NoGradGuard no_grad;
  const auto ends_with = [](const std::string& text, const std::string& end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
  };
  auto parameters = named_parameters();
  for (auto& item : parameters) {
    const std::string& name = item.key();
    const std::string module = name.substr(0, name.rfind('.'));
    torch::Tensor& parameter = item.value();
    const bool is_weight = ends_with(name, ".weight");
    const bool is_norm = module.find("norm") != std::string::npos;
    if (is_norm) {
      parameter.fill_(is_weight ? 1.0 : 0.0);
    } else if (ends_with(module, "conv1") || ends_with(module, "proj") || module == "out_conv") {
      parameter.zero_();
    } else if (module == "map_label") {
      fill_keyed_normal(parameter, seed, prefix + name, 1.0);  // sqrt(L) * sqrt(1 / fan_in), fan_in = L
    } else {
      const auto& weight = parameters[module + ".weight"];
      const auto fan_in = static_cast<double>(weight.numel() / weight.size(0));
      fill_keyed_uniform(parameter, seed, prefix + name, 1 / std::sqrt(fan_in));
    }
  }
}

}  // namespace onestep
