#include "cli/network_layouts.h"

#include <array>

#include "cli/layout_builder.h"

namespace onestep {
namespace {

void resnet(LayoutBuilder& builder, const std::string& name, std::int64_t in, std::int64_t out,
            std::int64_t emb) {
  builder.norm(name + ".norm1", in);
  builder.conv(name + ".conv1", in, out, 3);
  if (emb > 0) builder.linear(name + ".time_emb_proj", emb, out);
  builder.norm(name + ".norm2", out);
  builder.conv(name + ".conv2", out, out, 3);
  if (in != out) builder.conv(name + ".conv_shortcut", in, out, 1);
}

void transformer(LayoutBuilder& builder, const std::string& name, std::int64_t channels,
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

}  // namespace

NetworkLayout sd_unet_layout(const SdUnetLayoutOptions& options) {
  LayoutBuilder builder("Stable Diffusion UNet");
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
  LayoutBuilder builder("Stable Diffusion autoencoder (AutoencoderKL)");
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
  LayoutBuilder builder("CLIP text encoder");
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

NetworkLayout under_ldm_names(const NetworkLayout& layout, const std::string& prefix, const ModuleNames& ldm_to_diffusers) {
  const ModuleNames back = reversed(ldm_to_diffusers);
  NetworkLayout named{layout.name, {}, {}};
  for (const auto& [name, shape] : layout.parameters) {
    const bool pointwise = name.find(".mid_block.attentions.0.to_") != std::string::npos && name.ends_with(".weight");
    named.parameters[prefix + renamed(name, back)] = pointwise && prefix == kLdmAutoencoder ? Shape{shape[0], shape[1], 1, 1} : shape;
  }
  for (const auto& [name, shape] : layout.buffers) named.buffers[prefix + renamed(name, back)] = shape;
  return named;
}

}  // namespace onestep
