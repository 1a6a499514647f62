#include "cli/network_layouts.h"

#include <algorithm>

#include "cli/layout_builder.h"

namespace onestep {
namespace {

bool contains(const std::vector<std::int64_t>& list, std::int64_t value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

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
  LayoutBuilder builder_;
  std::vector<std::int64_t> skips_;  // channels of each skip, last in first out
};

// EDM2's Block, MPConv and MPFourier: no biases, no norms, a gain where an embedding enters.
class Edm2Builder {
 public:
  explicit Edm2Builder(const Edm2LayoutOptions& options) : options_(options), builder_("EDM2 UNet") {}

  NetworkLayout build() {
    const Edm2LayoutOptions& o = options_;
    builder_.parameter("unet.out_gain", {});
    fourier("unet.emb_fourier", o.noise_channels);
    builder_.linear("unet.emb_noise", o.noise_channels, o.emb_channels, false);
    if (o.label_dim > 0) builder_.linear("unet.emb_label", o.label_dim, o.emb_channels, false);
    encoder();
    decoder();
    if (o.logvar_channels > 0) {
      fourier("logvar_fourier", o.logvar_channels);
      builder_.linear("logvar_linear", o.logvar_channels, 1, false);
    }
    return builder_.take();
  }

 private:
  void fourier(const std::string& name, std::int64_t channels) {
    builder_.buffer(name + ".freqs", {channels});
    builder_.buffer(name + ".phases", {channels});
  }

  static std::string at(const char* part, std::int64_t resolution, const std::string& name) {
    const std::string side = std::to_string(resolution);
    return std::string("unet.") + part + "." + side + "x" + side + "_" + name;
  }

  // An encoder's block changes the width before its residual branch, a decoder's within it.
  void block(const std::string& name, std::int64_t in, std::int64_t out, bool encoder, bool attention) {
    builder_.parameter(name + ".emb_gain", {});
    builder_.conv(name + ".conv_res0", encoder ? out : in, out, 3, false);
    builder_.linear(name + ".emb_linear", options_.emb_channels, out, false);
    builder_.conv(name + ".conv_res1", out, out, 3, false);
    if (in != out) builder_.conv(name + ".conv_skip", in, out, 1, false);
    if (attention) {
      builder_.conv(name + ".attn_qkv", out, 3 * out, 1, false);
      builder_.conv(name + ".attn_proj", out, out, 1, false);
    }
  }

  void encoder() {
    std::int64_t channels = options_.level_channels.front();
    for (std::size_t level = 0; level < options_.resolutions.size(); ++level) {
      const std::int64_t resolution = options_.resolutions[level];
      if (level == 0) {
        builder_.conv(at("enc", resolution, "conv"), options_.image_channels + 1, channels, 3, false);
      } else {
        block(at("enc", resolution, "down"), channels, channels, true, false);
      }
      skips_.push_back(channels);
      for (std::int64_t n = 0; n < options_.num_blocks; ++n) {
        const std::int64_t out = options_.level_channels[level];
        block(at("enc", resolution, "block" + std::to_string(n)), channels, out, true,
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
        block(at("dec", resolution, "up"), channels, channels, false, false);
      }
      for (std::int64_t n = 0; n <= options_.num_blocks; ++n) {
        const std::int64_t out = options_.level_channels[level];
        block(at("dec", resolution, "block" + std::to_string(n)), channels + skips_.back(), out, false,
              contains(options_.attention_resolutions, resolution));
        skips_.pop_back();
        channels = out;
      }
    }
    builder_.conv("unet.out_conv", channels, options_.image_channels, 3, false);
  }

  const Edm2LayoutOptions& options_;
  LayoutBuilder builder_;
  std::vector<std::int64_t> skips_;  // channels of each skip, last in first out
};

}  // namespace

NetworkLayout edm_layout(const EdmLayoutOptions& options) { return EdmBuilder(options).build(); }

NetworkLayout edm2_layout(const Edm2LayoutOptions& options) { return Edm2Builder(options).build(); }

}  // namespace onestep
