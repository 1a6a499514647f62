// The text encoder of CLIP (Radford et al. 2021) under transformers' key names (class CLIPTextModel).
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "worker/models/raw_layers.h"
#include "worker/tensors/torch.h"

namespace onestep {

// The defaults are those of ViT-L/14's text tower, which Stable Diffusion 1.5 uses.
struct ClipTextConfig {
  std::int64_t vocab_size = 49408;
  std::int64_t max_position_embeddings = 77;
  std::int64_t hidden_size = 768;
  std::int64_t intermediate_size = 3072;
  std::int64_t num_hidden_layers = 12;  // SD2 stores 23 of OpenCLIP's 24
  std::int64_t num_attention_heads = 12;
  std::int64_t projection_dim = 768;    // kept for export; no projection is in the file
  std::string hidden_act = "quick_gelu";  // or "gelu" (OpenCLIP): x sigmoid(1.702 x), or erf-GELU
  double layer_norm_eps = 1e-5;
};

// Strict, as sd_unet_config_from_json(). Errors: ConfigError.
ClipTextConfig clip_text_config_from_json(const nlohmann::json& document, const std::string& where);
// The document that transformers reads; dtype: "float32", "float16", "bfloat16".
nlohmann::json to_transformers_json(const ClipTextConfig& config, const std::string& dtype);

// Causal self-attention and MLP, each behind its LayerNorm and added to its input.
class ClipTextLayerImpl final : public torch::nn::Module {
 public:
  ClipTextLayerImpl(const ClipTextConfig& config, const torch::TensorOptions& tensors);
  torch::Tensor forward(torch::Tensor x);

 private:
  [[nodiscard]] torch::Tensor attend(const torch::Tensor& x);

  std::int64_t heads_;
  bool quick_gelu_;
  RawLinear k_proj_{nullptr}, v_proj_{nullptr}, q_proj_{nullptr}, out_proj_{nullptr}, fc1_{nullptr}, fc2_{nullptr};
  RawLayerNorm layer_norm1{nullptr}, layer_norm2{nullptr};
};
TORCH_MODULE(ClipTextLayer);

// Keys carry the prefix "text_model.", as published. Parameters as in raw_layers.h.
class ClipTextImpl final : public torch::nn::Module {
 public:
  explicit ClipTextImpl(const ClipTextConfig& config, const torch::TensorOptions& tensors = torch::kFloat32);
  // ids [B,T] int64, T <= max_position_embeddings, padding included -> the last layer behind final_layer_norm, [B,T,hidden_size].
  // Padding is seen, as Stable Diffusion does: the mask is causal only. Errors: kMismatch for other shapes.
  torch::Tensor forward(const torch::Tensor& ids);
  [[nodiscard]] const ClipTextConfig& config() const { return config_; }

 private:
  ClipTextConfig config_;
  RawEmbedding token_embedding_{nullptr}, position_embedding_{nullptr};
  std::vector<ClipTextLayer> layers_;
  RawLayerNorm final_layer_norm_{nullptr};
};
TORCH_MODULE(ClipText);

}  // namespace onestep
