#include "worker/models/adm_unet.h"

#include <algorithm>
#include <cmath>

#include "worker/models/initialize.h"

namespace onestep {
namespace {

constexpr double kAdmNormEpsilon = 1e-5;

}  // namespace

AdmUnetImpl::AdmUnetImpl(const NetworkSpec& spec) : spec_(spec) {
  const std::int64_t emb = spec.model_channels * spec.channel_mult_emb;
  const std::int64_t half = spec.model_channels / 2;
  const auto i = torch::arange(half, torch::kFloat64);
  frequencies_ = (spec.noise_frequencies == "geometric"
                      ? torch::pow(100.0, i / static_cast<double>(half - 1))
                      : torch::pow(10000.0, -i / static_cast<double>(half)))
                     .to(torch::kFloat32);
  map_layer0 = register_module("map_layer0", RawLinear(spec.model_channels, emb, true, torch::kFloat32));
  map_layer1 = register_module("map_layer1", RawLinear(emb, emb, true, torch::kFloat32));
  if (spec.label_dim > 0) {
    map_label = register_module(
        "map_label", RawLinear(spec.label_dim, emb, false, torch::kFloat32));
  }

  const std::int64_t unshuffle = spec.pixel_unshuffle;
  const std::int64_t base = spec.image_size / unshuffle;
  auto enc = register_module("enc", std::make_shared<torch::nn::Module>());
  auto dec = register_module("dec", std::make_shared<torch::nn::Module>());
  UnetBlockOptions options;
  options.emb_channels = emb;
  options.epsilon = kAdmNormEpsilon;
  const auto heads = [&spec](bool attention, std::int64_t channels) {
    return attention ? channels / spec.channels_per_head : 0;
  };
  const auto add_encoder = [&](const std::string& name) {
    encoder_.push_back(enc->register_module(name, UnetBlock(options)));
  };
  const auto add_decoder = [&](const std::string& name, bool joins_skip) {
    decoder_.push_back({dec->register_module(name, UnetBlock(options)), joins_skip});
  };

  // Encoder: every entry's output is kept for the decoder.
  const auto levels = static_cast<std::int64_t>(spec.channel_mult.size());
  std::vector<std::int64_t> skip_channels;
  std::int64_t channels = 0;
  for (std::int64_t level = 0; level < levels; ++level) {
    const std::int64_t resolution = base >> level;
    if (level == 0) {
      channels = spec.model_channels * spec.channel_mult[0];
      first_conv_ = enc->register_module(entry_name(resolution, "conv"),
                                         unet_conv(spec.image_channels * unshuffle * unshuffle, channels, 3));
    } else {
      options.in_channels = options.out_channels = channels;
      options.resampling = Resampling::kDown;
      options.num_heads = 0;
      add_encoder(entry_name(resolution, "down"));
      options.resampling = Resampling::kNone;
    }
    skip_channels.push_back(channels);
    for (std::int64_t n = 0; n < spec.num_blocks; ++n) {
      options.in_channels = channels;
      options.out_channels = channels = spec.model_channels * spec.channel_mult[level];
      options.num_heads = heads(attends_at(spec, resolution), channels);
      add_encoder(entry_name(resolution, "block" + std::to_string(n)));
      skip_channels.push_back(channels);
    }
  }
  // Decoder: one more block a level; its blocks take the encoder's outputs in reverse.
  for (std::int64_t level = levels - 1; level >= 0; --level) {
    const std::int64_t resolution = base >> level;
    options.in_channels = options.out_channels = channels;
    if (level == levels - 1) {
      options.num_heads = heads(true, channels);
      add_decoder(entry_name(resolution, "in0"), false);
      options.num_heads = 0;
      add_decoder(entry_name(resolution, "in1"), false);
    } else {
      options.resampling = Resampling::kUp;
      options.num_heads = 0;
      add_decoder(entry_name(resolution, "up"), false);
      options.resampling = Resampling::kNone;
    }
    for (std::int64_t n = 0; n <= spec.num_blocks; ++n) {
      options.in_channels = channels + skip_channels.back();
      skip_channels.pop_back();
      options.out_channels = channels = spec.model_channels * spec.channel_mult[level];
      options.num_heads = heads(attends_at(spec, resolution), channels);
      add_decoder(entry_name(resolution, "block" + std::to_string(n)), true);
    }
  }
  out_norm = register_module("out_norm", group_norm(channels, kAdmNormEpsilon));
  out_conv = register_module("out_conv", unet_conv(channels, output_channels(spec) * unshuffle * unshuffle, 3));
}

// emb = SiLU(layer1(SiLU(layer0(cos, sin of c_noise))) + label).
torch::Tensor AdmUnetImpl::embed(const torch::Tensor& c_noise, const torch::Tensor& labels) {
  if (frequencies_.device() != c_noise.device()) frequencies_ = frequencies_.to(c_noise.device());
  const auto angles = c_noise.unsqueeze(1) * frequencies_;
  const auto dtype = map_layer0->weight.scalar_type();
  auto emb = map_layer1(torch::silu(map_layer0(torch::cat({angles.cos(), angles.sin()}, 1).to(dtype))));
  if (!map_label.is_empty()) emb = emb + map_label(labels.to(dtype));
  return torch::silu(emb);
}

torch::Tensor AdmUnetImpl::run_to_middle(const torch::Tensor& x, const torch::Tensor& emb, std::vector<torch::Tensor>& skips) {
  torch::Tensor h = spec_.pixel_unshuffle > 1 ? torch::pixel_unshuffle(x, spec_.pixel_unshuffle) : x;
  h = first_conv_(h.contiguous(torch::MemoryFormat::ChannelsLast));
  skips = {h};
  for (auto& block : encoder_) {
    h = block(h, emb);
    skips.push_back(h);
  }
  for (std::size_t i = 0; i < kNumMiddleBlocks; ++i) h = decoder_[i].block(h, emb);
  return h;
}

torch::Tensor AdmUnetImpl::bottleneck(const torch::Tensor& x, const torch::Tensor& c_noise, const torch::Tensor& labels) {
  std::vector<torch::Tensor> skips;
  return run_to_middle(x, embed(c_noise, labels), skips);
}

torch::Tensor AdmUnetImpl::forward(const torch::Tensor& x, const torch::Tensor& c_noise,
                                   const torch::Tensor& labels) {
  const torch::Tensor emb = embed(c_noise, labels);
  std::vector<torch::Tensor> skips;
  torch::Tensor h = run_to_middle(x, emb, skips);
  for (std::size_t i = kNumMiddleBlocks; i < decoder_.size(); ++i) {
    Step& step = decoder_[i];
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
