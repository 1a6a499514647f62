#include "cli/network_layouts.h"

#include <algorithm>
#include <array>

namespace onestep {
namespace {

// Adds the tensors of layers, as PyTorch names and shapes them.
class Builder {
 public:
  explicit Builder(std::string name) { layout_.name = std::move(name); }

  void parameter(const std::string& name, const Shape& shape) { layout_.parameters[name] = shape; }
  void buffer(const std::string& name, const Shape& shape) { layout_.buffers[name] = shape; }
  void pair(const std::string& name, const Shape& weight, bool bias = true) {
    parameter(name + ".weight", weight);
    if (bias) parameter(name + ".bias", {weight[0]});
  }
  void conv(const std::string& name, std::int64_t in, std::int64_t out, std::int64_t kernel,
            bool bias = true) {
    pair(name, {out, in, kernel, kernel}, bias);
  }
  void linear(const std::string& name, std::int64_t in, std::int64_t out, bool bias = true) {
    pair(name, {out, in}, bias);
  }
  void norm(const std::string& name, std::int64_t channels) { pair(name, {channels}); }

  NetworkLayout take() { return std::move(layout_); }

 private:
  NetworkLayout layout_;
};

bool contains(const std::vector<std::int64_t>& list, std::int64_t value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

// ---- EDM
// -----------------------------------------------------------------------------------------

class EdmBuilder {
 public:
  explicit EdmBuilder(const EdmLayoutOptions& options)
      : options_(options), builder_(options.adm ? "EDM adm_unet" : "EDM song_unet") {}

  NetworkLayout build() {
    embedding();
    encoder();
    decoder();
    return builder_.take();
  }

 private:
  void embedding() {
    const EdmLayoutOptions& o = options_;
    if (o.fourier) builder_.buffer("model.map_noise.freqs", {o.noise_channels / 2});
    if (o.label_dim > 0)
      builder_.linear("model.map_label", o.label_dim, o.adm ? o.emb_channels : o.noise_channels,
                      !o.adm);
    if (o.augment_dim > 0)
      builder_.linear("model.map_augment", o.augment_dim, o.noise_channels, false);
    builder_.linear("model.map_layer0", o.noise_channels, o.emb_channels);
    builder_.linear("model.map_layer1", o.emb_channels, o.emb_channels);
  }

  void block(const std::string& name, std::int64_t in, std::int64_t out, bool resampled,
             bool attention) {
    builder_.norm(name + ".norm0", in);
    builder_.conv(name + ".conv0", in, out, 3);
    builder_.linear(name + ".affine", options_.emb_channels, options_.adm ? 2 * out : out);
    builder_.norm(name + ".norm1", out);
    builder_.conv(name + ".conv1", out, out, 3);
    if (in != out || (resampled && !options_.adm)) builder_.conv(name + ".skip", in, out, 1);
    if (resampled) {
      for (const char* part : {".conv0", ".skip"}) filter(name + part);
    }
    if (attention) {
      builder_.norm(name + ".norm2", out);
      builder_.conv(name + ".qkv", out, 3 * out, 1);
      builder_.conv(name + ".proj", out, out, 1);
    }
  }

  void filter(const std::string& name) {
    builder_.buffer(name + ".resample_filter", {1, 1, options_.filter, options_.filter});
  }

  static std::string at(const char* part, std::int64_t resolution, const std::string& name) {
    const std::string side = std::to_string(resolution);
    return std::string("model.") + part + "." + side + "x" + side + "_" + name;
  }

  void encoder() {
    std::int64_t channels = options_.model_channels, aux = options_.in_channels;
    for (std::size_t level = 0; level < options_.resolutions.size(); ++level) {
      const std::int64_t resolution = options_.resolutions[level];
      if (level == 0) {
        builder_.conv(at("enc", resolution, "conv"), options_.in_channels, channels, 3);
      } else {
        block(at("enc", resolution, "down"), channels, channels, true, false);
        if (options_.residual) {
          builder_.conv(at("enc", resolution, "aux_residual"), aux, channels, 3);
          filter(at("enc", resolution, "aux_residual"));
          aux = channels;
        }
      }
      skips_.push_back(channels);
      for (std::int64_t n = 0; n < options_.num_blocks; ++n) {
        const std::int64_t out = options_.level_channels[level];
        block(at("enc", resolution, "block" + std::to_string(n)), channels, out, false,
              contains(options_.attention_resolutions, resolution));
        channels = out;
        skips_.push_back(channels);
      }
    }
  }

  void decoder() {
    std::int64_t channels = options_.level_channels.back();
    for (std::size_t level = options_.resolutions.size(); level-- > 0;) {
      const std::int64_t resolution = options_.resolutions[level];
      if (level + 1 == options_.resolutions.size()) {
        block(at("dec", resolution, "in0"), channels, channels, false, true);
        block(at("dec", resolution, "in1"), channels, channels, false, false);
      } else {
        block(at("dec", resolution, "up"), channels, channels, true, false);
      }
      for (std::int64_t n = 0; n <= options_.num_blocks; ++n) {
        const std::int64_t out = options_.level_channels[level];
        const bool attention = contains(options_.attention_resolutions, resolution) &&
                               (options_.adm || n == options_.num_blocks);
        block(at("dec", resolution, "block" + std::to_string(n)), channels + skips_.back(), out,
              false, attention);
        skips_.pop_back();
        channels = out;
      }
    }
    const std::int64_t top = options_.resolutions.front();
    builder_.norm(options_.adm ? "model.out_norm" : at("dec", top, "aux_norm"), channels);
    builder_.conv(options_.adm ? "model.out_conv" : at("dec", top, "aux_conv"), channels,
                  options_.out_channels, 3);
  }

  const EdmLayoutOptions& options_;
  Builder builder_;
  std::vector<std::int64_t> skips_;  // channels of each skip, last in first out
};

// ---- Stable Diffusion
// ----------------------------------------------------------------------------

void resnet(Builder& builder, const std::string& name, std::int64_t in, std::int64_t out,
            std::int64_t emb) {
  builder.norm(name + ".norm1", in);
  builder.conv(name + ".conv1", in, out, 3);
  if (emb > 0) builder.linear(name + ".time_emb_proj", emb, out);
  builder.norm(name + ".norm2", out);
  builder.conv(name + ".conv2", out, out, 3);
  if (in != out) builder.conv(name + ".conv_shortcut", in, out, 1);
}

void transformer(Builder& builder, const std::string& name, std::int64_t channels,
                 std::int64_t depth, const SdUnetLayoutOptions& options) {
  const Shape projection =
      options.linear_projection ? Shape{channels, channels} : Shape{channels, channels, 1, 1};
  builder.norm(name + ".norm", channels);
  builder.pair(name + ".proj_in", projection);
  builder.pair(name + ".proj_out", projection);
  for (std::int64_t n = 0; n < depth; ++n) {
    const std::string block = name + ".transformer_blocks." + std::to_string(n);
    for (const char* norm : {".norm1", ".norm2", ".norm3"}) builder.norm(block + norm, channels);
    for (const auto& [attention, context] :
         {std::pair{".attn1", channels}, {".attn2", options.context}}) {
      builder.linear(block + attention + ".to_q", channels, channels, false);
      builder.linear(block + attention + ".to_k", context, channels, false);
      builder.linear(block + attention + ".to_v", context, channels, false);
      builder.linear(block + attention + ".to_out.0", channels, channels);
    }
    builder.linear(block + ".ff.net.0.proj", channels, 8 * channels);
    builder.linear(block + ".ff.net.2", 4 * channels, channels);
  }
}

std::string numbered(const std::string& name, std::size_t n) {
  return name + "." + std::to_string(n);
}

}  // namespace

std::int64_t NetworkLayout::num_parameters() const {
  std::uint64_t total =
      0;  // unsigned: sizes read off a hostile file may wrap, and then differ anyway
  for (const auto& [name_of_tensor, shape] : parameters) {
    std::uint64_t elements = 1;
    for (const std::int64_t dimension : shape) elements *= static_cast<std::uint64_t>(dimension);
    total += elements;
  }
  return static_cast<std::int64_t>(total);
}

NetworkLayout edm_layout(const EdmLayoutOptions& options) { return EdmBuilder(options).build(); }

NetworkLayout sd_unet_layout(const SdUnetLayoutOptions& options) {
  Builder builder("Stable Diffusion UNet");
  const auto& channels = options.channels;
  const std::size_t levels = channels.size();
  const auto layers = static_cast<std::size_t>(options.layers);
  const std::int64_t emb = 4 * channels[0];
  builder.conv("conv_in", options.in_channels, channels[0], 3);
  builder.linear("time_embedding.linear_1", channels[0], emb);
  builder.linear("time_embedding.linear_2", emb, emb);
  if (options.add_embedding > 0) {
    builder.linear("add_embedding.linear_1", options.add_embedding, emb);
    builder.linear("add_embedding.linear_2", emb, emb);
  }
  std::int64_t current = channels[0];
  std::vector<std::int64_t> skips = {current};
  for (std::size_t b = 0; b < levels; ++b) {
    const std::string block = numbered("down_blocks", b);
    for (std::size_t n = 0; n < layers; ++n) {
      resnet(builder, numbered(block + ".resnets", n), current, channels[b], emb);
      current = channels[b];
      if (options.depths[b] > 0)
        transformer(builder, numbered(block + ".attentions", n), current, options.depths[b],
                    options);
      skips.push_back(current);
    }
    if (b + 1 < levels) {
      builder.conv(block + ".downsamplers.0.conv", current, current, 3);
      skips.push_back(current);
    }
  }
  resnet(builder, "mid_block.resnets.0", current, current, emb);
  transformer(builder, "mid_block.attentions.0", current, options.mid_depth, options);
  resnet(builder, "mid_block.resnets.1", current, current, emb);
  for (std::size_t b = 0; b < levels; ++b) {
    const std::string block = numbered("up_blocks", b);
    const std::size_t level = levels - 1 - b;
    for (std::size_t n = 0; n <= layers; ++n) {
      resnet(builder, numbered(block + ".resnets", n), current + skips.back(), channels[level],
             emb);
      skips.pop_back();
      current = channels[level];
      if (options.depths[level] > 0) {
        transformer(builder, numbered(block + ".attentions", n), current, options.depths[level],
                    options);
      }
    }
    if (b + 1 < levels) builder.conv(block + ".upsamplers.0.conv", current, current, 3);
  }
  builder.norm("conv_norm_out", current);
  builder.conv("conv_out", current, options.out_channels, 3);
  return builder.take();
}

NetworkLayout autoencoder_kl_layout(bool old_names) {
  Builder builder("Stable Diffusion autoencoder (AutoencoderKL)");
  constexpr std::array<std::int64_t, 4> kChannels{128, 256, 512, 512};
  const auto mid = [&](const std::string& part) {
    resnet(builder, part + ".mid_block.resnets.0", 512, 512, 0);
    resnet(builder, part + ".mid_block.resnets.1", 512, 512, 0);
    const std::string attention = part + ".mid_block.attentions.0";
    builder.norm(attention + ".group_norm", 512);
    const std::array<const char*, 4> names =
        old_names ? std::array{".query", ".key", ".value", ".proj_attn"}
                  : std::array{".to_q", ".to_k", ".to_v", ".to_out.0"};
    for (const char* name : names) builder.linear(attention + name, 512, 512);
  };
  builder.conv("encoder.conv_in", 3, 128, 3);
  std::int64_t current = 128;
  for (std::size_t b = 0; b < kChannels.size(); ++b) {
    const std::string block = numbered("encoder.down_blocks", b);
    for (std::size_t n = 0; n < 2; ++n) {
      resnet(builder, numbered(block + ".resnets", n), current, kChannels[b], 0);
      current = kChannels[b];
    }
    if (b + 1 < kChannels.size()) builder.conv(block + ".downsamplers.0.conv", current, current, 3);
  }
  mid("encoder");
  builder.norm("encoder.conv_norm_out", 512);
  builder.conv("encoder.conv_out", 512, 8, 3);
  builder.conv("quant_conv", 8, 8, 1);
  builder.conv("post_quant_conv", 4, 4, 1);
  builder.conv("decoder.conv_in", 4, 512, 3);
  mid("decoder");
  for (std::size_t b = 0; b < kChannels.size(); ++b) {
    const std::string block = numbered("decoder.up_blocks", b);
    const std::int64_t out = kChannels[kChannels.size() - 1 - b];
    for (std::size_t n = 0; n < 3; ++n) {
      resnet(builder, numbered(block + ".resnets", n), current, out, 0);
      current = out;
    }
    if (b + 1 < kChannels.size()) builder.conv(block + ".upsamplers.0.conv", current, current, 3);
  }
  builder.norm("decoder.conv_norm_out", 128);
  builder.conv("decoder.conv_out", 128, 3, 3);
  return builder.take();
}

NetworkLayout clip_text_layout(std::int64_t width, std::int64_t layers, std::int64_t projection,
                               const std::string& prefix) {
  Builder builder("CLIP text encoder");
  builder.parameter(prefix + "embeddings.token_embedding.weight", {49408, width});
  builder.parameter(prefix + "embeddings.position_embedding.weight", {77, width});
  builder.buffer(prefix + "embeddings.position_ids", {1, 77});
  for (std::int64_t n = 0; n < layers; ++n) {
    const std::string layer = prefix + "encoder.layers." + std::to_string(n);
    builder.norm(layer + ".layer_norm1", width);
    builder.norm(layer + ".layer_norm2", width);
    for (const char* name : {"q", "k", "v", "out"})
      builder.linear(layer + ".self_attn." + name + "_proj", width, width);
    builder.linear(layer + ".mlp.fc1", width, 4 * width);
    builder.linear(layer + ".mlp.fc2", 4 * width, width);
  }
  builder.norm(prefix + "final_layer_norm", width);
  if (projection > 0) builder.linear("text_projection", width, projection, false);
  return builder.take();
}

namespace {

// Convolutions without bias, each with a batch norm.
class InceptionBuilder {
 public:
  NetworkLayout build() {
    unit("Conv2d_1a_3x3", 3, 32, 3, 3);
    unit("Conv2d_2a_3x3", 32, 32, 3, 3);
    unit("Conv2d_2b_3x3", 32, 64, 3, 3);
    unit("Conv2d_3b_1x1", 64, 80, 1, 1);
    unit("Conv2d_4a_3x3", 80, 192, 3, 3);
    block_a("Mixed_5b.", 192, 32);
    block_a("Mixed_5c.", 256, 64);
    block_a("Mixed_5d.", 288, 64);
    unit("Mixed_6a.branch3x3", 288, 384, 3, 3);
    unit("Mixed_6a.branch3x3dbl_1", 288, 64, 1, 1);
    unit("Mixed_6a.branch3x3dbl_2", 64, 96, 3, 3);
    unit("Mixed_6a.branch3x3dbl_3", 96, 96, 3, 3);
    block_c("Mixed_6b.", 128);
    block_c("Mixed_6c.", 160);
    block_c("Mixed_6d.", 160);
    block_c("Mixed_6e.", 192);
    unit("Mixed_7a.branch3x3_1", 768, 192, 1, 1);
    unit("Mixed_7a.branch3x3_2", 192, 320, 3, 3);
    unit("Mixed_7a.branch7x7x3_1", 768, 192, 1, 1);
    unit("Mixed_7a.branch7x7x3_2", 192, 192, 1, 7);
    unit("Mixed_7a.branch7x7x3_3", 192, 192, 7, 1);
    unit("Mixed_7a.branch7x7x3_4", 192, 192, 3, 3);
    block_e("Mixed_7b.", 1280);
    block_e("Mixed_7c.", 2048);
    builder_.linear("fc", 2048, 1008);
    return builder_.take();
  }

 private:
  void unit(const std::string& name, std::int64_t in, std::int64_t out, std::int64_t height,
            std::int64_t width) {
    builder_.pair(name + ".conv", {out, in, height, width}, false);
    builder_.norm(name + ".bn", out);
    builder_.buffer(name + ".bn.running_mean", {out});
    builder_.buffer(name + ".bn.running_var", {out});
    builder_.buffer(name + ".bn.num_batches_tracked", {});
  }
  void block_a(const std::string& name, std::int64_t in, std::int64_t pool) {
    unit(name + "branch1x1", in, 64, 1, 1);
    unit(name + "branch5x5_1", in, 48, 1, 1);
    unit(name + "branch5x5_2", 48, 64, 5, 5);
    unit(name + "branch3x3dbl_1", in, 64, 1, 1);
    unit(name + "branch3x3dbl_2", 64, 96, 3, 3);
    unit(name + "branch3x3dbl_3", 96, 96, 3, 3);
    unit(name + "branch_pool", in, pool, 1, 1);
  }
  void block_c(const std::string& name, std::int64_t inner) {
    unit(name + "branch1x1", 768, 192, 1, 1);
    unit(name + "branch7x7_1", 768, inner, 1, 1);
    unit(name + "branch7x7_2", inner, inner, 1, 7);
    unit(name + "branch7x7_3", inner, 192, 7, 1);
    unit(name + "branch7x7dbl_1", 768, inner, 1, 1);
    unit(name + "branch7x7dbl_2", inner, inner, 7, 1);
    unit(name + "branch7x7dbl_3", inner, inner, 1, 7);
    unit(name + "branch7x7dbl_4", inner, inner, 7, 1);
    unit(name + "branch7x7dbl_5", inner, 192, 1, 7);
    unit(name + "branch_pool", 768, 192, 1, 1);
  }
  void block_e(const std::string& name, std::int64_t in) {
    unit(name + "branch1x1", in, 320, 1, 1);
    unit(name + "branch3x3_1", in, 384, 1, 1);
    unit(name + "branch3x3_2a", 384, 384, 1, 3);
    unit(name + "branch3x3_2b", 384, 384, 3, 1);
    unit(name + "branch3x3dbl_1", in, 448, 1, 1);
    unit(name + "branch3x3dbl_2", 448, 384, 3, 3);
    unit(name + "branch3x3dbl_3a", 384, 384, 1, 3);
    unit(name + "branch3x3dbl_3b", 384, 384, 3, 1);
    unit(name + "branch_pool", in, 192, 1, 1);
  }

  Builder builder_{"Inception v3 (2015-12-05)"};
};

}  // namespace

NetworkLayout inception_layout() { return InceptionBuilder().build(); }

NetworkLayout vgg16_layout() {
  Builder builder("VGG16 (torchvision's features)");
  constexpr std::array<std::array<std::int64_t, 3>, 13> kLayers{{{0, 3, 64},
                                                                 {2, 64, 64},
                                                                 {5, 64, 128},
                                                                 {7, 128, 128},
                                                                 {10, 128, 256},
                                                                 {12, 256, 256},
                                                                 {14, 256, 256},
                                                                 {17, 256, 512},
                                                                 {19, 512, 512},
                                                                 {21, 512, 512},
                                                                 {24, 512, 512},
                                                                 {26, 512, 512},
                                                                 {28, 512, 512}}};
  for (const auto& [index, in, out] : kLayers)
    builder.conv("features." + std::to_string(index), in, out, 3);
  return builder.take();
}

NetworkLayout lpips_layout() {
  Builder builder("LPIPS v0.1 weights for VGG16");
  constexpr std::array<std::int64_t, 5> kChannels{64, 128, 256, 512, 512};
  for (std::size_t i = 0; i < kChannels.size(); ++i) {
    builder.conv("lin" + std::to_string(i) + ".model.1", kChannels[i], 1, 1, false);
  }
  return builder.take();
}

NetworkLayout digit_detector_layout(std::int64_t channels, std::int64_t pooled_pixels,
                                    std::int64_t num_classes) {
  Builder builder("Onestep digit detector");
  builder.conv("conv1", channels, 32, 3);
  builder.conv("conv2", 32, 64, 3);
  builder.linear("fc1", 64 * pooled_pixels, 64);
  builder.linear("fc2", 64, num_classes);
  return builder.take();
}

}  // namespace onestep
