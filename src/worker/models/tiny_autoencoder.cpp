#include "worker/models/tiny_autoencoder.h"

#include <algorithm>

#include "worker/models/diffusers_config.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxTinySize = 1 << 20;

const std::vector<FixedKey> kFixedTinyKeys = {
    {"_class_name", R"(["AutoencoderTiny"])"}, {"act_fn", R"(["relu"])"},
    {"upsample_fn", R"(["nearest"])"},         {"upsampling_scaling_factor", "[2]"},
    {"shift_factor", "[0.0, null]"},
};

// One width in all blocks, as the class itself needs, and as many numbers of blocks as widths.
void check_widths(ConfigReader& reader, const char* widths_key, const std::vector<std::int64_t>& widths,
                  const char* blocks_key, const std::vector<std::int64_t>& blocks) {
  if (widths.empty() || std::any_of(widths.begin(), widths.end(), [&](auto width) { return width != widths.front(); })) {
    reader.violation(widths_key, "expected one or more widths, all equal, found " + json(widths).dump());
  }
  if (blocks.size() != widths.size()) {
    reader.violation(blocks_key, "expected " + std::to_string(widths.size()) + " entries, as " + widths_key +
                                     " has, found " + std::to_string(blocks.size()));
  }
}

RawConv2d conv(std::int64_t in, std::int64_t out, std::int64_t stride, bool bias, const torch::TensorOptions& tensors) {
  return RawConv2d(RawConvOptions{in, out, 3, stride, 1, bias}, tensors);
}

}  // namespace

TinyAutoencoderConfig tiny_autoencoder_config_from_json(const json& document, const std::string& where) {
  ConfigReader reader(document, "");
  TinyAutoencoderConfig config;
  if (document.is_object()) {
    check_fixed_keys(reader, document, kFixedTinyKeys);
    // block_out_channels repeats the decoder's; latent_magnitude and latent_shift serve storing latents as bytes.
    know_harmless_keys(reader, document, {"block_out_channels", "force_upcast", "latent_magnitude", "latent_shift"});
    require_keys(reader, {"_class_name"});
  }
  config.in_channels = reader.integer("in_channels", config.in_channels, 1, kMaxTinySize);
  config.out_channels = reader.integer("out_channels", config.out_channels, 1, kMaxTinySize);
  config.latent_channels = reader.integer("latent_channels", config.latent_channels, 1, kMaxTinySize);
  config.encoder_block_out_channels =
      reader.integers("encoder_block_out_channels", config.encoder_block_out_channels, 1, kMaxTinySize);
  config.decoder_block_out_channels =
      reader.integers("decoder_block_out_channels", config.decoder_block_out_channels, 1, kMaxTinySize);
  config.num_encoder_blocks = reader.integers("num_encoder_blocks", config.num_encoder_blocks, 0, 64);
  config.num_decoder_blocks = reader.integers("num_decoder_blocks", config.num_decoder_blocks, 0, 64);
  config.scaling_factor = reader.number("scaling_factor", config.scaling_factor, 1e-6, 1e6);
  check_widths(reader, "encoder_block_out_channels", config.encoder_block_out_channels, "num_encoder_blocks",
               config.num_encoder_blocks);
  check_widths(reader, "decoder_block_out_channels", config.decoder_block_out_channels, "num_decoder_blocks",
               config.num_decoder_blocks);
  reader.finish(where);
  return config;
}

json to_diffusers_json(const TinyAutoencoderConfig& config) {
  return {{"_class_name", "AutoencoderTiny"},
          {"act_fn", "relu"},
          {"decoder_block_out_channels", config.decoder_block_out_channels},
          {"encoder_block_out_channels", config.encoder_block_out_channels},
          {"in_channels", config.in_channels},
          {"latent_channels", config.latent_channels},
          {"num_decoder_blocks", config.num_decoder_blocks},
          {"num_encoder_blocks", config.num_encoder_blocks},
          {"out_channels", config.out_channels},
          {"scaling_factor", config.scaling_factor},
          {"upsampling_scaling_factor", 2}};
}

TinyBlockImpl::TinyBlockImpl(std::int64_t channels, const torch::TensorOptions& tensors) {
  ModuleListBuilder list(*this, "conv");
  for (int i = 0; i < 3; ++i) {
    convolutions_.push_back(list.add(conv(channels, channels, 1, true, tensors)));
    list.skip();  // ReLU
  }
}

torch::Tensor TinyBlockImpl::forward(const torch::Tensor& x) {
  auto h = torch::relu(convolutions_[0](x));
  h = torch::relu(convolutions_[1](h));
  return torch::relu(convolutions_[2](h) + x);
}

TinyAutoencoderImpl::TinyAutoencoderImpl(const TinyAutoencoderConfig& config, const torch::TensorOptions& tensors)
    : config_(config), encoder_(build_encoder(tensors)), decoder_(build_decoder(tensors)) {}

std::vector<TinyAutoencoderImpl::Layer> TinyAutoencoderImpl::build_encoder(const torch::TensorOptions& tensors) {
  auto encoder = register_module("encoder", std::make_shared<torch::nn::Module>());
  ModuleListBuilder list(*encoder, "layers");
  std::vector<Layer> layers;
  const auto add = [&](auto module) {
    layers.emplace_back([layer = list.add(module)](const torch::Tensor& x) mutable { return layer(x); });
  };
  const std::int64_t width = config_.encoder_block_out_channels.front();
  for (std::size_t level = 0; level < config_.num_encoder_blocks.size(); ++level) {
    add(level == 0 ? conv(config_.in_channels, width, 1, true, tensors) : conv(width, width, 2, false, tensors));
    for (std::int64_t n = 0; n < config_.num_encoder_blocks[level]; ++n) add(TinyBlock(width, tensors));
  }
  add(conv(width, config_.latent_channels, 1, true, tensors));
  return layers;
}

std::vector<TinyAutoencoderImpl::Layer> TinyAutoencoderImpl::build_decoder(const torch::TensorOptions& tensors) {
  auto decoder = register_module("decoder", std::make_shared<torch::nn::Module>());
  ModuleListBuilder list(*decoder, "layers");
  std::vector<Layer> layers;
  const auto add = [&](auto module) {
    layers.emplace_back([layer = list.add(module)](const torch::Tensor& x) mutable { return layer(x); });
  };
  const auto add_plain = [&](Layer layer) {
    list.skip();
    layers.push_back(std::move(layer));
  };
  const std::int64_t width = config_.decoder_block_out_channels.front();
  add(conv(config_.latent_channels, width, 1, true, tensors));
  add_plain([](const torch::Tensor& x) { return torch::relu(x); });
  const std::size_t levels = config_.num_decoder_blocks.size();
  for (std::size_t level = 0; level < levels; ++level) {
    const bool last = level + 1 == levels;
    for (std::int64_t n = 0; n < config_.num_decoder_blocks[level]; ++n) add(TinyBlock(width, tensors));
    if (!last) {
      add_plain([](const torch::Tensor& x) {
        return torch::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)});
      });
    }
    add(conv(width, last ? config_.out_channels : width, 1, last, tensors));
  }
  return layers;
}

torch::Tensor TinyAutoencoderImpl::encode(const torch::Tensor& images) {
  auto x = ((images + 1) / 2).contiguous(torch::MemoryFormat::ChannelsLast);  // [-1,1] -> [0,1]
  for (const Layer& layer : encoder_) x = layer(x);
  return x;
}

torch::Tensor TinyAutoencoderImpl::decode(const torch::Tensor& latents) {
  auto x = (torch::tanh(latents / 3) * 3).contiguous(torch::MemoryFormat::ChannelsLast);
  for (const Layer& layer : decoder_) x = layer(x);
  return 2 * x - 1;  // [0,1] -> [-1,1]
}

}  // namespace onestep
