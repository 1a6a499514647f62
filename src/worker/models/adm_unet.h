// The ADM U-Net (Dhariwal and Nichol 2021) as EDM publishes it: class DhariwalUNet, its key names and its layout.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/job_spec.h"

namespace onestep {

// One residual block, with optional x2 resampling and self-attention.
struct AdmBlockOptions {
  std::int64_t in_channels = 0;
  std::int64_t out_channels = 0;
  std::int64_t emb_channels = 0;
  std::int64_t channels_per_head = 64;
  bool up = false;
  bool down = false;
  bool attention = false;
};

class AdmBlockImpl : public torch::nn::Module {
 public:
  explicit AdmBlockImpl(const AdmBlockOptions& options);
  // x [B,in,H,W], emb [B,emb] -> [B,out,H',W'].
  torch::Tensor forward(torch::Tensor x, const torch::Tensor& emb);
  [[nodiscard]] std::int64_t out_channels() const { return options_.out_channels; }

 private:
  torch::Tensor resample(const torch::Tensor& x) const;
  torch::Tensor attend(const torch::Tensor& x);

  AdmBlockOptions options_;
  std::int64_t heads_ = 0;
  torch::nn::GroupNorm norm0{nullptr}, norm1{nullptr}, norm2{nullptr};
  torch::nn::Conv2d conv0{nullptr}, conv1{nullptr}, skip{nullptr}, qkv{nullptr}, proj{nullptr};
  torch::nn::Linear affine{nullptr};
};
TORCH_MODULE(AdmBlock);

// F of EDM Eq. 7. Input [B,C,H,W], c_noise [B], labels one-hot [B,L] or undefined.
class AdmUnetImpl : public torch::nn::Module {
 public:
  explicit AdmUnetImpl(const NetworkSpec& spec);
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& c_noise, const torch::Tensor& labels);
  // Published initialisation, keyed by `seed` and name (under `prefix`).
  void initialize(std::uint64_t seed, const std::string& prefix);

 private:
  [[nodiscard]] torch::Tensor embed(const torch::Tensor& c_noise, const torch::Tensor& labels);

  struct Step {
    AdmBlock block;
    bool joins_skip = false;
  };

  NetworkSpec spec_;
  torch::Tensor frequencies_;  // [model_channels / 2]
  torch::nn::Linear map_layer0{nullptr}, map_layer1{nullptr}, map_label{nullptr};
  torch::nn::Conv2d first_conv_{nullptr};
  std::vector<AdmBlock> encoder_;
  std::vector<Step> decoder_;
  torch::nn::GroupNorm out_norm{nullptr};
  torch::nn::Conv2d out_conv{nullptr};
};
TORCH_MODULE(AdmUnet);

}  // namespace onestep
