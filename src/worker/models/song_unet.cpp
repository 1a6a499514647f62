#include "worker/models/song_unet.h"

#include <cmath>
#include <numbers>

#include "worker/models/initialize.h"

namespace onestep {
namespace {

constexpr double kSongNormEpsilon = 1e-6;

RawLinear linear(std::int64_t in, std::int64_t out, bool bias) {
  return RawLinear(in, out, bias, torch::kFloat32);
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

SongUnetImpl::SongUnetImpl(const NetworkSpec& spec) : spec_(spec) {
  const std::int64_t emb = spec.model_channels * spec.channel_mult_emb;
  const std::int64_t noise = spec.model_channels * spec.channel_mult_noise;
  if (spec.embedding_type == "fourier") {
    auto map_noise = register_module("map_noise", std::make_shared<torch::nn::Module>());
    frequencies_ = map_noise->register_buffer("freqs", torch::zeros({noise / 2}));
  } else {
    const auto i = torch::arange(noise / 2, torch::kFloat64);  // 1 down to 1/10000, both included
    frequencies_ = torch::pow(10000.0, -i / static_cast<double>(noise / 2 - 1)).to(torch::kFloat32);
  }
  if (spec.label_dim > 0) map_label = register_module("map_label", linear(spec.label_dim, noise, true));
  if (spec.augment_dim > 0) map_augment = register_module("map_augment", linear(spec.augment_dim, noise, false));
  map_layer0 = register_module("map_layer0", linear(noise, emb, true));
  map_layer1 = register_module("map_layer1", linear(emb, emb, true));

  block_.emb_channels = emb;
  block_.filter = spec.resample_filter;
  block_.adaptive_scale = false;
  block_.always_project_resampled = true;
  block_.skip_scale = std::sqrt(0.5);
  block_.epsilon = kSongNormEpsilon;
  std::vector<std::int64_t> skip_channels;
  build_encoder(skip_channels);
  build_decoder(std::move(skip_channels));
}

std::int64_t SongUnetImpl::width(std::int64_t level) const {
  return spec_.model_channels * spec_.channel_mult[static_cast<std::size_t>(level)];
}

// Every entry's output is kept for the decoder, but the image's path.
void SongUnetImpl::build_encoder(std::vector<std::int64_t>& skip_channels) {
  auto enc = register_module("enc", std::make_shared<torch::nn::Module>());
  std::int64_t channels = spec_.model_channels;
  std::int64_t image_channels = spec_.image_channels;
  for (std::int64_t level = 0; level < num_levels(); ++level) {
    const std::int64_t resolution = spec_.image_size >> level;
    if (level == 0) {
      first_conv_ = enc->register_module(entry_name(resolution, "conv"), unet_conv(image_channels, channels, 3));
    } else {
      UnetBlockOptions down = block_;
      down.in_channels = down.out_channels = channels;
      down.resampling = Resampling::kDown;
      Step& step = encoder_.emplace_back();
      step.block = enc->register_module(entry_name(resolution, "down"), UnetBlock(down));
      if (spec_.encoder_type == "residual") {
        UnetConvOptions image;
        image.in_channels = image_channels;
        image.out_channels = image_channels = channels;
        image.resampling = Resampling::kDown;
        image.filter = spec_.resample_filter;
        image.fused = true;
        step.image = enc->register_module(entry_name(resolution, "aux_residual"), UnetConv(image));
      }
    }
    skip_channels.push_back(channels);
    for (std::int64_t n = 0; n < spec_.num_blocks; ++n) {
      UnetBlockOptions options = block_;
      options.in_channels = channels;
      options.out_channels = channels = width(level);
      options.num_heads = attends_at(spec_, resolution) ? 1 : 0;
      encoder_.emplace_back().block =
          enc->register_module(entry_name(resolution, "block" + std::to_string(n)), UnetBlock(options));
      skip_channels.push_back(channels);
    }
  }
}

// One more block a level; these take the encoder's outputs in reverse. Attention: always in the middle, and in a level's last
// block.
void SongUnetImpl::build_decoder(std::vector<std::int64_t> skip_channels) {
  auto dec = register_module("dec", std::make_shared<torch::nn::Module>());
  std::int64_t channels = skip_channels.back();
  const auto add = [&](const std::string& name, const UnetBlockOptions& options) {
    decoder_.push_back(dec->register_module(name, UnetBlock(options)));
  };
  for (std::int64_t level = num_levels() - 1; level >= 0; --level) {
    const std::int64_t resolution = spec_.image_size >> level;
    UnetBlockOptions options = block_;
    options.in_channels = options.out_channels = channels;
    if (level == num_levels() - 1) {
      options.num_heads = 1;
      add(entry_name(resolution, "in0"), options);
      options.num_heads = 0;
      add(entry_name(resolution, "in1"), options);
    } else {
      options.resampling = Resampling::kUp;
      add(entry_name(resolution, "up"), options);
      options.resampling = Resampling::kNone;
    }
    for (std::int64_t n = 0; n <= spec_.num_blocks; ++n) {
      options.in_channels = channels + skip_channels.back();
      skip_channels.pop_back();
      options.out_channels = channels = width(level);
      options.num_heads = n == spec_.num_blocks && attends_at(spec_, resolution) ? 1 : 0;
      add(entry_name(resolution, "block" + std::to_string(n)), options);
    }
    if (level == 0) {
      aux_norm_ = dec->register_module(entry_name(resolution, "aux_norm"), group_norm(channels, kSongNormEpsilon));
      aux_conv_ = dec->register_module(entry_name(resolution, "aux_conv"), unet_conv(channels, output_channels(spec_), 3));
    }
  }
}

// emb = SiLU(layer1(SiLU(layer0(noise + label)))), noise = (sin, cos) of c_noise times the frequencies, label of the one-hot
// vector times sqrt(L).
torch::Tensor SongUnetImpl::embed(const torch::Tensor& c_noise, const torch::Tensor& labels) {
  if (frequencies_.device() != c_noise.device()) frequencies_ = frequencies_.to(c_noise.device());
  const auto dtype = map_layer0->weight.scalar_type();
  const double turn = spec_.embedding_type == "fourier" ? 2 * std::numbers::pi : 1.0;
  const auto angles = c_noise.unsqueeze(1) * (frequencies_ * turn);
  auto emb = torch::cat({angles.sin(), angles.cos()}, 1).to(dtype);
  if (!map_label.is_empty()) {
    emb = emb + map_label((labels * std::sqrt(static_cast<double>(spec_.label_dim))).to(dtype));
  }
  emb = torch::silu(map_layer0(emb));
  return torch::silu(map_layer1(emb));
}

torch::Tensor SongUnetImpl::run_to_middle(const torch::Tensor& x, const torch::Tensor& emb, std::vector<torch::Tensor>& skips) {
  torch::Tensor image = x.contiguous(torch::MemoryFormat::ChannelsLast);
  torch::Tensor h = first_conv_(image);
  skips = {h};
  for (Step& step : encoder_) {
    h = step.block(h, emb);
    if (!step.image.is_empty()) h = image = (h + step.image(image)) * std::sqrt(0.5);
    skips.push_back(h);
  }
  for (std::size_t i = 0; i < kNumMiddleBlocks; ++i) h = decoder_[i](h, emb);
  return h;
}

torch::Tensor SongUnetImpl::bottleneck(const torch::Tensor& x, const torch::Tensor& c_noise, const torch::Tensor& labels) {
  std::vector<torch::Tensor> skips;
  return run_to_middle(x, embed(c_noise, labels), skips);
}

torch::Tensor SongUnetImpl::forward(const torch::Tensor& x, const torch::Tensor& c_noise, const torch::Tensor& labels) {
  const torch::Tensor emb = embed(c_noise, labels);
  std::vector<torch::Tensor> skips;
  torch::Tensor h = run_to_middle(x, emb, skips);
  for (std::size_t i = kNumMiddleBlocks; i < decoder_.size(); ++i) {
    UnetBlock& block = decoder_[i];
    if (block->in_channels() != h.size(1)) {
      h = torch::cat({h, skips.back()}, 1);
      skips.pop_back();
    }
    h = block(h, emb);
  }
  return aux_conv_(normalize(aux_norm_, h, {}, true));
}

// Xavier's uniform weights, zero biases; the last convolution of every branch close to zero, qkv times sqrt(0.2).
void SongUnetImpl::initialize(std::uint64_t seed, const std::string& prefix) {
  constexpr double kFourierScale = 16, kLast = 1e-5;
  torch::NoGradGuard no_grad;
  auto parameters = named_parameters();
  for (auto& item : parameters) {
    const std::string& name = item.key();
    const std::string module = name.substr(0, name.rfind('.'));
    torch::Tensor& parameter = item.value();
    if (module.find("norm") != std::string::npos) {
      parameter.fill_(ends_with(name, ".weight") ? 1.0 : 0.0);
    } else if (ends_with(name, ".bias")) {
      parameter.zero_();
    } else {
      const double pixels = parameter.dim() == 4 ? static_cast<double>(parameter.size(2) * parameter.size(3)) : 1;
      const double fans = static_cast<double>(parameter.size(0) + parameter.size(1)) * pixels;
      const bool last = ends_with(module, "conv1") || ends_with(module, "proj") || ends_with(module, "aux_conv");
      const double gain = last ? kLast : ends_with(module, "qkv") ? std::sqrt(0.2) : 1;
      fill_keyed_uniform(parameter, seed, prefix + name, gain * std::sqrt(6 / fans));
    }
  }
  if (spec_.embedding_type == "fourier") {
    fill_keyed_normal(frequencies_, seed, prefix + "map_noise.freqs", kFourierScale);
  }
}

}  // namespace onestep
