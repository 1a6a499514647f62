// The regression distance of DMD Eq. 9.
#pragma once

#include <memory>
#include <string>

#include "worker/tensors/torch.h"

namespace onestep {

class Distance {
 public:
  virtual ~Distance() = default;
  // x, reference [B,C,H,W] -> [B]: one distance a sample (for L2 the mean over C, H, W). Differentiable in x.
  [[nodiscard]] virtual torch::Tensor operator()(const torch::Tensor& x, const torch::Tensor& reference) const = 0;
};

class L2Distance final : public Distance {
 public:
  [[nodiscard]] torch::Tensor operator()(const torch::Tensor& x, const torch::Tensor& reference) const override;
};

// By the spec's name: "l2". Errors: kConfig.
std::unique_ptr<Distance> make_distance(const std::string& name);

}  // namespace onestep
