#include "worker/models/clip_text.h"

#include "common/error.h"
#include "worker/models/diffusers_config.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxTextSize = 1 << 20;

const std::vector<FixedKey> kFixedTextKeys = {
    {"model_type", R"(["clip_text_model"])"},
    {"architectures", R"([["CLIPTextModel"], null])"},
    {"attention_dropout", "[0.0]"},
    {"dropout", "[0.0]"},
    {"is_encoder_decoder", "[false]"},
};
// Token numbers are the tokenizer's business; the rest speaks of training, of saving or of generating text.
const std::vector<const char*> kHarmlessKeys = {
    "bos_token_id", "eos_token_id", "pad_token_id", "dtype", "torch_dtype", "transformers_version", "initializer_factor",
    "initializer_range", "is_decoder", "add_cross_attention", "cross_attention_hidden_size", "decoder_start_token_id",
    "tie_encoder_decoder", "tie_word_embeddings", "output_hidden_states", "output_attentions", "return_dict", "use_cache",
    "chunk_size_feed_forward", "id2label", "label2id", "problem_type", "finetuning_task", "gradient_checkpointing"};

}  // namespace

ClipTextConfig clip_text_config_from_json(const json& document, const std::string& where) {
  ConfigReader reader(document, "");
  ClipTextConfig config;
  if (document.is_object()) {
    check_fixed_keys(reader, document, kFixedTextKeys);
    know_harmless_keys(reader, document, kHarmlessKeys);
    require_keys(reader, {"model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"});
  }
  config.vocab_size = reader.integer("vocab_size", config.vocab_size, 1, kMaxTextSize);
  config.max_position_embeddings = reader.integer("max_position_embeddings", config.max_position_embeddings, 1, kMaxTextSize);
  config.hidden_size = reader.integer("hidden_size", config.hidden_size, 1, kMaxTextSize);
  config.intermediate_size = reader.integer("intermediate_size", config.intermediate_size, 1, kMaxTextSize);
  config.num_hidden_layers = reader.integer("num_hidden_layers", config.num_hidden_layers, 1, 1024);
  config.num_attention_heads = reader.integer("num_attention_heads", config.num_attention_heads, 1, kMaxTextSize);
  config.projection_dim = reader.integer("projection_dim", config.projection_dim, 1, kMaxTextSize);
  config.hidden_act = reader.choice("hidden_act", config.hidden_act, {"quick_gelu", "gelu"});
  config.layer_norm_eps = reader.number("layer_norm_eps", config.layer_norm_eps, 0, 1);
  if (config.hidden_size % config.num_attention_heads != 0) {
    reader.violation("hidden_size", "expected a multiple of num_attention_heads (" +
                                        std::to_string(config.num_attention_heads) + "), found " +
                                        std::to_string(config.hidden_size));
  }
  reader.finish(where);
  return config;
}

json to_transformers_json(const ClipTextConfig& config, const std::string& dtype) {
  return {{"architectures", {"CLIPTextModel"}},
          {"attention_dropout", 0.0},
          {"bos_token_id", 0},
          {"dropout", 0.0},
          {"dtype", dtype},
          {"eos_token_id", 2},
          {"hidden_act", config.hidden_act},
          {"hidden_size", config.hidden_size},
          {"initializer_factor", 1.0},
          {"initializer_range", 0.02},
          {"intermediate_size", config.intermediate_size},
          {"layer_norm_eps", config.layer_norm_eps},
          {"max_position_embeddings", config.max_position_embeddings},
          {"model_type", "clip_text_model"},
          {"num_attention_heads", config.num_attention_heads},
          {"num_hidden_layers", config.num_hidden_layers},
          {"pad_token_id", 1},
          {"projection_dim", config.projection_dim},
          {"vocab_size", config.vocab_size}};
}

ClipTextLayerImpl::ClipTextLayerImpl(const ClipTextConfig& config, const torch::TensorOptions& tensors)
    : heads_(config.num_attention_heads), quick_gelu_(config.hidden_act == "quick_gelu") {
  const std::int64_t width = config.hidden_size;
  auto self_attn = register_module("self_attn", std::make_shared<torch::nn::Module>());
  k_proj_ = self_attn->register_module("k_proj", RawLinear(width, width, true, tensors));
  v_proj_ = self_attn->register_module("v_proj", RawLinear(width, width, true, tensors));
  q_proj_ = self_attn->register_module("q_proj", RawLinear(width, width, true, tensors));
  out_proj_ = self_attn->register_module("out_proj", RawLinear(width, width, true, tensors));
  layer_norm1 = register_module("layer_norm1", RawLayerNorm(width, config.layer_norm_eps, tensors));
  auto mlp = register_module("mlp", std::make_shared<torch::nn::Module>());
  fc1_ = mlp->register_module("fc1", RawLinear(width, config.intermediate_size, true, tensors));
  fc2_ = mlp->register_module("fc2", RawLinear(config.intermediate_size, width, true, tensors));
  layer_norm2 = register_module("layer_norm2", RawLayerNorm(width, config.layer_norm_eps, tensors));
}

torch::Tensor ClipTextLayerImpl::attend(const torch::Tensor& x) {
  const auto of_heads = [this](const torch::Tensor& t) {  // (B, heads, T, width)
    return t.view({t.size(0), t.size(1), heads_, t.size(2) / heads_}).transpose(1, 2);
  };
  const auto mixed = torch::scaled_dot_product_attention(of_heads(q_proj_(x)), of_heads(k_proj_(x)), of_heads(v_proj_(x)),
                                                         {}, 0.0, /*is_causal=*/true);
  return out_proj_(mixed.transpose(1, 2).reshape(x.sizes()));
}

torch::Tensor ClipTextLayerImpl::forward(torch::Tensor x) {
  x = x + attend(layer_norm1(x));
  const auto h = fc1_(layer_norm2(x));
  return x + fc2_(quick_gelu_ ? h * torch::sigmoid(1.702 * h) : torch::gelu(h));
}

ClipTextImpl::ClipTextImpl(const ClipTextConfig& config, const torch::TensorOptions& tensors) : config_(config) {
  auto text_model = register_module("text_model", std::make_shared<torch::nn::Module>());
  auto embeddings = text_model->register_module("embeddings", std::make_shared<torch::nn::Module>());
  token_embedding_ =
      embeddings->register_module("token_embedding", RawEmbedding(config.vocab_size, config.hidden_size, tensors));
  position_embedding_ = embeddings->register_module(
      "position_embedding", RawEmbedding(config.max_position_embeddings, config.hidden_size, tensors));
  auto encoder = text_model->register_module("encoder", std::make_shared<torch::nn::Module>());
  ModuleListBuilder layers(*encoder, "layers");
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) layers_.push_back(layers.add(ClipTextLayer(config, tensors)));
  final_layer_norm_ = text_model->register_module(
      "final_layer_norm", RawLayerNorm(config.hidden_size, config.layer_norm_eps, tensors));
}

torch::Tensor ClipTextImpl::forward(const torch::Tensor& ids) {
  if (ids.dim() != 2 || ids.scalar_type() != torch::kInt64 || ids.size(1) > config_.max_position_embeddings) {
    throw Error(ErrorCode::kMismatch, "clip text: ids: expected int64 [B, up to " +
                                          std::to_string(config_.max_position_embeddings) + "], found " +
                                          std::string(c10::toString(ids.scalar_type())) + " " + c10::str(ids.sizes()));
  }
  auto x = token_embedding_(ids) + position_embedding_->weight.narrow(0, 0, ids.size(1));
  for (auto& layer : layers_) x = layer(x);
  return final_layer_norm_(x);
}

}  // namespace onestep
