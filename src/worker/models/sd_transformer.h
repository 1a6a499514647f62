// Attention and the transformer block of Stable Diffusion (diffusers: Attention, BasicTransformerBlock, Transformer2DModel).
#pragma once

#include <cstdint>

#include "worker/models/raw_layers.h"
#include "worker/tensors/torch.h"

namespace onestep {

struct SdAttentionOptions {
  std::int64_t channels = 0;          // of the queries and of the output
  std::int64_t context_channels = 0;  // of keys and values' source
  std::int64_t heads = 1;             // divides channels
  bool qkv_bias = false;
  std::int64_t norm_groups = 0;       // group_norm (eps 1e-6) in front, where above 0: the autoencoder's
};

// softmax(q k^T / sqrt(channels / heads)) v, then to_out.0.
class SdAttentionImpl final : public torch::nn::Module {
 public:
  SdAttentionImpl(const SdAttentionOptions& options, const torch::TensorOptions& tensors);
  // x [B,N,channels], context [B,M,context_channels] -> [B,N,channels].
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& context);
  // x [B,C,H,W] -> x + self-attention over the pixels of group_norm(x).
  torch::Tensor forward_image(const torch::Tensor& x);

 private:
  std::int64_t heads_;
  RawGroupNorm group_norm{nullptr};
  RawLinear to_q{nullptr}, to_k{nullptr}, to_v{nullptr}, out_{nullptr};
};
TORCH_MODULE(SdAttention);

// ff.net.0.proj -> first half times erf-GELU of the second (GEGLU, Shazeer 2020) -> ff.net.2.
class SdFeedForwardImpl final : public torch::nn::Module {
 public:
  SdFeedForwardImpl(std::int64_t channels, const torch::TensorOptions& tensors);
  torch::Tensor forward(const torch::Tensor& x);

 private:
  RawLinear in_{nullptr}, out_{nullptr};
};
TORCH_MODULE(SdFeedForward);

// Self-attention, cross-attention and feed-forward, each behind its LayerNorm and added to its input.
class SdTransformerBlockImpl final : public torch::nn::Module {
 public:
  SdTransformerBlockImpl(std::int64_t channels, std::int64_t context_channels, std::int64_t heads,
                         const torch::TensorOptions& tensors);
  torch::Tensor forward(torch::Tensor x, const torch::Tensor& context);

 private:
  RawLayerNorm norm1{nullptr}, norm2{nullptr}, norm3{nullptr};
  SdAttention attn1{nullptr}, attn2{nullptr};
  SdFeedForward ff{nullptr};
};
TORCH_MODULE(SdTransformerBlock);

struct SdTransformerOptions {
  std::int64_t channels = 0, context_channels = 0, heads = 1, groups = 32;
  bool linear_projection = false;  // proj_in, proj_out [C,C] (SD2) or 1x1 convolutions [C,C,1,1] (SD1)
};

// GroupNorm (eps 1e-6) -> proj_in -> one block over the pixels -> proj_out, added to the input.
class SdTransformerImpl final : public torch::nn::Module {
 public:
  SdTransformerImpl(const SdTransformerOptions& options, const torch::TensorOptions& tensors);
  // x [B,C,H,W], context [B,T,context_channels] -> [B,C,H,W].
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& context);
  // Activation checkpointing: less memory, one more forward pass, the same bits (those of context's gradient apart: keys and
  // values add to it in another order; embeddings of a frozen text encoder have none).
  void recompute_in_backward(bool on) { recompute_ = on; }

 private:
  torch::Tensor compute(const torch::Tensor& x_skip, const torch::Tensor& x, const torch::Tensor& context);
  torch::Tensor project(RawLinear& linear, RawConv2d& convolution, const torch::Tensor& pixels);

  bool recompute_ = false;
  RawGroupNorm norm{nullptr};
  RawLinear linear_in_{nullptr}, linear_out_{nullptr};
  RawConv2d conv_in_{nullptr}, conv_out_{nullptr};
  SdTransformerBlock block_{nullptr};
};
TORCH_MODULE(SdTransformer);

}  // namespace onestep
