// Inception v3 of 2015-12-05, the network behind FID, IS and KID (Szegedy et al. 2016; TensorFlow's release, as pytorch-fid and
// torch-fidelity rebuild it).
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/safetensors_file.h"
#include "worker/models/named_weights.h"
#include "worker/tensors/torch.h"

namespace onestep {

// Every tensor of the file, under the names of pytorch-fid (torchvision's): 94 convolutions with their norms, and fc.
// 23,850,960 parameters without the running means and variances.
std::vector<ExpectedTensor> inception_tensors();

// What differs from torchvision's: 1,008 classes, no auxiliary head, means over the pixels inside the picture in the pooling
// branches, a maximum there in Mixed_7c, and 1e-3 in the norms. Inference only: the norms are folded into the convolutions.
// CPU and fp32 until move_to(); otherwise immutable, any thread.
class Inception {
 public:
  static constexpr std::int64_t kSide = 299, kNumFeatures = 2048, kNumClasses = 1008;

  // Takes the names of inception_tensors(), or NVIDIA's (`layers.mixed_3.tower.conv_1.beta`, `output.weight`: the nodes of
  // TensorFlow's graph; no scale in the norms). `bn.num_batches_tracked` is ignored. `where` names the file.
  // Errors: kMismatch listing everything that doesn't fit.
  Inception(const std::vector<TensorView>& tensors, const std::string& where);

  // To another device, weights and activations to `dtype`; features and logits stay fp32.
  void move_to(const torch::Device& device, torch::ScalarType dtype);

  // x [B,3,299,299] fp32 in about [-1,1], already resized and scaled (metrics/resize.h) -> [B,2048]: the mean over the last
  // 8x8 map ("pool3"). Errors: kMismatch for another shape.
  [[nodiscard]] torch::Tensor features(const torch::Tensor& x) const;
  // features [B,2048] -> [B,1008].
  [[nodiscard]] torch::Tensor logits(const torch::Tensor& features) const;
  // The same without the last layer's bias: what the Inception Score's authors used.
  [[nodiscard]] torch::Tensor logits_without_bias(const torch::Tensor& features) const;

 private:
  struct Convolution {
    torch::Tensor weight, bias;  // norm folded in
    std::array<std::int64_t, 2> padding{};
    std::int64_t stride = 1;
  };
  // relu(norm(conv(x))) of the layer of that name.
  [[nodiscard]] torch::Tensor conv(const std::string& name, const torch::Tensor& x) const;
  [[nodiscard]] torch::Tensor chain(const std::string& block, std::initializer_list<const char*> layers, torch::Tensor x) const;
  [[nodiscard]] torch::Tensor pooled_branch(const std::string& block, const torch::Tensor& x) const;
  [[nodiscard]] torch::Tensor block_a(const std::string& name, const torch::Tensor& x) const;
  [[nodiscard]] torch::Tensor block_b(const std::string& name, const torch::Tensor& x) const;
  [[nodiscard]] torch::Tensor block_c(const std::string& name, const torch::Tensor& x) const;
  [[nodiscard]] torch::Tensor block_d(const std::string& name, const torch::Tensor& x) const;
  [[nodiscard]] torch::Tensor block_e(const std::string& name, const torch::Tensor& x, bool is_max_pool) const;

  std::map<std::string, Convolution> convolutions_;
  torch::Tensor fc_weight_, fc_bias_;
};

}  // namespace onestep
