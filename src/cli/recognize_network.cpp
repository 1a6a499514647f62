#include "cli/recognize_network.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <optional>
#include <set>

namespace onestep {
namespace {

using Shapes = std::map<std::string, Shape>;

std::string text_of(const Shape& shape) { return nlohmann::json(shape).dump(); }

bool begins_with_any(const Shapes& shapes, const std::string& prefix) {
  const auto first = shapes.lower_bound(prefix);
  return first != shapes.end() && first->first.starts_with(prefix);
}

// The size of one dimension; 0 where the tensor or the dimension is missing or absurd: the
// comparison then names it.
std::int64_t size_at(const Shapes& shapes, const std::string& name, std::size_t dimension) {
  constexpr std::int64_t kMaxSize = std::int64_t{1} << 24;
  const auto found = shapes.find(name);
  if (found == shapes.end() || dimension >= found->second.size()) return 0;
  return found->second[dimension] <= kMaxSize ? found->second[dimension] : 0;
}

std::int64_t count_numbered(const Shapes& shapes, const std::string& prefix,
                            const std::string& suffix) {
  std::int64_t n = 0;
  while (shapes.contains(prefix + std::to_string(n) + suffix)) ++n;
  return n;
}

RecognizedNetwork compare(const Shapes& shapes, const NetworkLayout& layout, std::string name) {
  RecognizedNetwork result{std::move(name), layout.num_parameters(), {}};
  for (const auto& [tensor, shape] : layout.parameters) {
    const auto found = shapes.find(tensor);
    if (found == shapes.end()) {
      result.problems.push_back(tensor + ": expected " + text_of(shape) + ", found none");
    } else if (found->second != shape) {
      result.problems.push_back(tensor + ": expected " + text_of(shape) + ", found " +
                                text_of(found->second));
    }
  }
  for (const auto& [tensor, shape] : shapes) {
    if (layout.parameters.contains(tensor)) continue;
    const auto buffer = layout.buffers.find(tensor);
    if (buffer == layout.buffers.end()) {
      result.problems.push_back(tensor + ": expected no such tensor, found " + text_of(shape));
    } else if (buffer->second != shape) {
      result.problems.push_back(tensor + ": expected " + text_of(buffer->second) + ", found " +
                                text_of(shape));
    }
  }
  return result;
}

// ---- EDM
// -----------------------------------------------------------------------------------------

// "model.enc.32x32_block0.conv0.weight" -> 32
std::vector<std::int64_t> resolutions_of(const Shapes& shapes, const std::string& prefix) {
  std::set<std::int64_t, std::greater<>> sides;
  for (auto it = shapes.lower_bound(prefix); it != shapes.end() && it->first.starts_with(prefix);
       ++it) {
    std::int64_t side = 0;
    for (std::size_t at = prefix.size();
         at < it->first.size() && it->first[at] >= '0' && it->first[at] <= '9' && side < 100000;
         ++at) {
      side = 10 * side + (it->first[at] - '0');
    }
    if (side > 0) sides.insert(side);
  }
  return {sides.begin(), sides.end()};
}

std::string edm_name(const EdmLayoutOptions& options) {
  std::string name = options.adm                           ? "EDM adm_unet (ADM)"
                     : options.residual || options.fourier ? "EDM song_unet (NCSN++)"
                                                           : "EDM song_unet (DDPM++)";
  const std::string side = std::to_string(options.resolutions.front());
  name += ", " + side + "x" + side + ", " + std::to_string(options.in_channels) + " channels";
  name += options.label_dim > 0 ? ", " + std::to_string(options.label_dim) + " classes"
                                : ", unconditional";
  if (options.augment_dim > 0) name += ", augment_dim " + std::to_string(options.augment_dim);
  return name;
}

std::optional<RecognizedNetwork> recognize_edm(const Shapes& shapes) {
  if (!shapes.contains("model.map_layer0.weight")) return {};
  EdmLayoutOptions options;
  options.resolutions = resolutions_of(shapes, "model.enc.");
  if (options.resolutions.empty()) return {};
  const auto at = [](const char* part, std::int64_t side, const std::string& name) {
    return std::string("model.") + part + "." + std::to_string(side) + "x" + std::to_string(side) +
           "_" + name;
  };
  const std::int64_t top = options.resolutions.front();
  options.adm = shapes.contains("model.out_conv.weight");
  const std::string first = at("enc", top, "conv.weight");
  options.in_channels = size_at(shapes, first, 1);
  options.model_channels = size_at(shapes, first, 0);
  options.out_channels =
      size_at(shapes, options.adm ? "model.out_conv.weight" : at("dec", top, "aux_conv.weight"), 0);
  options.num_blocks = count_numbered(shapes, at("enc", top, "block"), ".conv0.weight");
  for (const std::int64_t side : options.resolutions) {
    options.level_channels.push_back(size_at(shapes, at("enc", side, "block0.conv0.weight"), 0));
    if (shapes.contains(at("enc", side, "block0.qkv.weight")))
      options.attention_resolutions.push_back(side);
    if (shapes.contains(at("enc", side, "aux_residual.weight"))) options.residual = true;
    if (const std::int64_t filter =
            size_at(shapes, at("enc", side, "down.conv0.resample_filter"), 3);
        filter > 0) {
      options.filter = filter;
    }
  }
  options.noise_channels = size_at(shapes, "model.map_layer0.weight", 1);
  options.emb_channels = size_at(shapes, "model.map_layer0.weight", 0);
  options.label_dim = size_at(shapes, "model.map_label.weight", 1);
  options.augment_dim = size_at(shapes, "model.map_augment.weight", 1);
  options.fourier = shapes.contains("model.map_noise.freqs");
  if (options.num_blocks == 0 || options.num_blocks > 64 || options.resolutions.size() > 16)
    return {};
  NetworkLayout layout = edm_layout(options);
  layout.buffers["u"] = {size_at(shapes, "u", 0)};  // iDDPM's noise levels
  return compare(shapes, layout, edm_name(options));
}

// ---- Stable Diffusion and its parts
// --------------------------------------------------------------

// The layout that the shapes ask for, under a name that says which.
std::optional<NetworkLayout> sd_unet_of(const Shapes& shapes) {
  if (!shapes.contains("time_embedding.linear_1.weight") || !shapes.contains("conv_in.weight"))
    return {};
  SdUnetLayoutOptions options;
  options.in_channels = size_at(shapes, "conv_in.weight", 1);
  options.out_channels = size_at(shapes, "conv_out.weight", 0);
  options.layers = count_numbered(shapes, "down_blocks.0.resnets.", ".conv1.weight");
  options.channels.clear();
  options.depths.clear();
  const std::int64_t levels = count_numbered(shapes, "down_blocks.", ".resnets.0.conv1.weight");
  for (std::int64_t b = 0; b < levels; ++b) {
    const std::string block = "down_blocks." + std::to_string(b);
    options.channels.push_back(size_at(shapes, block + ".resnets.0.conv1.weight", 0));
    options.depths.push_back(
        count_numbered(shapes, block + ".attentions.0.transformer_blocks.", ".norm1.weight"));
  }
  const std::string mid = "mid_block.attentions.0";
  options.mid_depth = count_numbered(shapes, mid + ".transformer_blocks.", ".norm1.weight");
  options.context = size_at(shapes, mid + ".transformer_blocks.0.attn2.to_k.weight", 1);
  const auto projection = shapes.find(mid + ".proj_in.weight");
  options.linear_projection = projection != shapes.end() && projection->second.size() == 2;
  options.add_embedding = size_at(shapes, "add_embedding.linear_1.weight", 1);
  if (options.channels.empty() || options.layers == 0 || options.layers > 16 ||
      options.channels.size() > 16)
    return {};
  std::string name = "UNet2DConditionModel";
  if (options.channels == Shape{320, 640, 1280, 1280}) {
    name = options.context == 768 && !options.linear_projection ? "Stable Diffusion 1.x UNet"
           : options.context == 1024                            ? "Stable Diffusion 2.x UNet"
                                                                : "Stable Diffusion UNet";
  } else if (options.channels == Shape{320, 640, 1280} && options.context == 2048) {
    name = "Stable Diffusion XL UNet";
  }
  NetworkLayout layout = sd_unet_layout(options);
  layout.name = name + ", context " + std::to_string(options.context);
  return layout;
}

std::optional<RecognizedNetwork> recognize_sd_unet(const Shapes& shapes) {
  const auto layout = sd_unet_of(shapes);
  if (!layout) return {};
  return compare(shapes, *layout, layout->name);
}

std::optional<RecognizedNetwork> recognize_autoencoder(const Shapes& shapes) {
  if (!shapes.contains("decoder.conv_in.weight") || !shapes.contains("encoder.conv_in.weight"))
    return {};
  const bool old_names = shapes.contains("encoder.mid_block.attentions.0.query.weight");
  const NetworkLayout layout = autoencoder_kl_layout(old_names);
  return compare(shapes, layout, layout.name + (old_names ? ", names from before 2023" : ""));
}

std::optional<RecognizedNetwork> recognize_clip(const Shapes& shapes) {
  for (const std::string prefix : {"text_model.", ""}) {
    const std::string embedding = prefix + "embeddings.token_embedding.weight";
    if (!shapes.contains(embedding)) continue;
    const std::int64_t width = size_at(shapes, embedding, 1);
    const std::int64_t layers =
        count_numbered(shapes, prefix + "encoder.layers.", ".layer_norm1.weight");
    const NetworkLayout layout =
        clip_text_layout(width, layers, size_at(shapes, "text_projection.weight", 0), prefix);
    const std::string which =
        width == 768 && layers == 12 ? " ViT-L/14 (Stable Diffusion 1.x)" : "";
    return compare(shapes, layout,
                   layout.name + which + ", " + std::to_string(layers) + " layers of " +
                       std::to_string(width));
  }
  return {};
}

std::optional<RecognizedNetwork> recognize_features(const Shapes& shapes) {
  if (shapes.contains("Mixed_7c.branch1x1.conv.weight") && !begins_with_any(shapes, "AuxLogits.")) {
    const NetworkLayout layout = inception_layout();
    return compare(shapes, layout, layout.name);
  }
  const bool trunk = shapes.contains("features.28.weight"),
             heads = shapes.contains("lin0.model.1.weight");
  if (trunk || heads) {
    NetworkLayout layout = trunk ? vgg16_layout() : lpips_layout();
    if (trunk && heads) {
      layout.parameters.merge(lpips_layout().parameters);
      layout.name = "LPIPS v0.1 with VGG16";
    }
    return compare(shapes, layout, layout.name);
  }
  if (shapes.contains("fc1.weight") && shapes.contains("conv1.weight")) {
    const NetworkLayout layout = digit_detector_layout(size_at(shapes, "conv1.weight", 1),
                                                       size_at(shapes, "fc1.weight", 1) / 64,
                                                       size_at(shapes, "fc2.weight", 0));
    return compare(shapes, layout, layout.name);
  }
  return {};
}

std::int64_t elements_of(const Shapes& shapes) {
  return NetworkLayout{"", shapes, {}}.num_parameters();
}

// A single file of the original code: UNet, autoencoder and text encoder under names of its own.
std::optional<RecognizedNetwork> recognize_ldm(const Shapes& shapes) {
  if (!begins_with_any(shapes, kLdmUnet)) return {};
  const bool is_xl = shapes.contains(kLdmUnet + "label_emb.0.0.weight");
  const ModuleNames modules =
      ldm_unet_modules(is_xl ? LdmUnetBlocks{3, 2, {true, true, false}} : LdmUnetBlocks{});
  Shapes unet, known;
  for (const auto& [name, shape] : shapes) {
    if (name.starts_with(kLdmUnet)) unet[renamed(name.substr(kLdmUnet.size()), modules)] = shape;
    // Text encoders of 2.x and XL have names of other projects: they are not compared.
    const bool other_text = name.starts_with("cond_stage_model.model.") || name.starts_with("conditioner.");
    if (!is_ldm_leftover(name) && !other_text) known[name] = shape;
  }
  const auto layout = sd_unet_of(unet);
  if (!layout) return RecognizedNetwork{"single file under LDM's names, with a UNet of no known kind", elements_of(shapes), {}};
  NetworkLayout whole = under_ldm_names(*layout, kLdmUnet, modules);
  std::string parts;
  const auto add = [&](const NetworkLayout& part, const char* what) {
    whole.parameters.insert(part.parameters.begin(), part.parameters.end());
    whole.buffers.insert(part.buffers.begin(), part.buffers.end());
    parts += std::string(", ") + what;
  };
  if (begins_with_any(shapes, kLdmAutoencoder))
    add(under_ldm_names(autoencoder_kl_layout(false), kLdmAutoencoder, ldm_vae_modules(4, 2)), "autoencoder");
  const std::string text = "cond_stage_model.transformer.";
  if (begins_with_any(shapes, text))
    add(clip_text_layout(768, 12, 0, text + "text_model."), "text encoder");
  return compare(known, whole, "single file under LDM's names: " + layout->name + parts);
}

std::optional<RecognizedNetwork> recognize_edm2(const Shapes& shapes) {
  if (!shapes.contains("unet.out_gain")) return {};
  const auto at = [](std::int64_t side, const std::string& name) {
    return "unet.enc." + std::to_string(side) + "x" + std::to_string(side) + "_" + name;
  };
  Edm2LayoutOptions options;
  options.resolutions = resolutions_of(shapes, "unet.enc.");
  if (options.resolutions.empty() || options.resolutions.size() > 16) return {};
  const std::int64_t top = options.resolutions.front();
  options.image_channels = size_at(shapes, "unet.out_conv.weight", 0);
  options.num_blocks = count_numbered(shapes, at(top, "block"), ".conv_res0.weight");
  options.level_channels.clear();
  options.attention_resolutions.clear();
  for (const std::int64_t side : options.resolutions) {
    options.level_channels.push_back(size_at(shapes, at(side, "block0.conv_res0.weight"), 0));
    if (shapes.contains(at(side, "block0.attn_qkv.weight"))) options.attention_resolutions.push_back(side);
  }
  options.noise_channels = size_at(shapes, "unet.emb_noise.weight", 1);
  options.emb_channels = size_at(shapes, "unet.emb_noise.weight", 0);
  options.label_dim = size_at(shapes, "unet.emb_label.weight", 1);
  options.logvar_channels = size_at(shapes, "logvar_linear.weight", 1);
  if (options.num_blocks == 0 || options.num_blocks > 64) return {};
  const std::string side = std::to_string(top);
  return compare(shapes, edm2_layout(options),
                 "EDM2 UNet, " + side + "x" + side + ", " + std::to_string(options.image_channels) + " channels, " +
                     std::to_string(options.level_channels.front()) + " wide, " +
                     (options.label_dim > 0 ? std::to_string(options.label_dim) + " classes" : "unconditional"));
}

}  // namespace

RecognizedNetwork recognize_network(const std::vector<TensorView>& tensors) {
  Shapes shapes;
  for (const TensorView& tensor : tensors) shapes[tensor.name] = tensor.shape;
  for (const auto recognize : {recognize_edm, recognize_sd_unet, recognize_autoencoder,
                               recognize_clip, recognize_features, recognize_ldm, recognize_edm2}) {
    if (auto network = recognize(shapes)) return *std::move(network);
  }
  return {};
}

}  // namespace onestep
