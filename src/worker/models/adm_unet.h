// The ADM U-Net (Dhariwal and Nichol 2021) as EDM publishes it: class DhariwalUNet, its key names and its layout.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/job_spec.h"
#include "worker/models/unet.h"
#include "worker/tensors/torch.h"

namespace onestep {

class AdmUnetImpl final : public Unet {
 public:
  explicit AdmUnetImpl(const NetworkSpec& spec);
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& c_noise, const torch::Tensor& labels) override;
  torch::Tensor bottleneck(const torch::Tensor& x, const torch::Tensor& c_noise, const torch::Tensor& labels) override;
  void initialize(std::uint64_t seed, const std::string& prefix) override;

 private:
  [[nodiscard]] torch::Tensor embed(const torch::Tensor& c_noise, const torch::Tensor& labels);
  // Encoder and middle; `skips` takes the encoder's outputs.
  torch::Tensor run_to_middle(const torch::Tensor& x, const torch::Tensor& emb, std::vector<torch::Tensor>& skips);

  struct Step {
    UnetBlock block;
    bool joins_skip = false;
  };

  NetworkSpec spec_;
  torch::Tensor frequencies_;  // [model_channels / 2]
  RawLinear map_layer0{nullptr}, map_layer1{nullptr}, map_label{nullptr};
  UnetConv first_conv_{nullptr};
  std::vector<UnetBlock> encoder_;
  std::vector<Step> decoder_;
  RawGroupNorm out_norm{nullptr};
  UnetConv out_conv{nullptr};
};
TORCH_MODULE(AdmUnet);

}  // namespace onestep
