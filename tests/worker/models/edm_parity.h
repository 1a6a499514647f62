// Rows of docs/parity.md for EDM's networks, and how far bf16 may be from fp32.
#pragma once

#include <cmath>
#include <string>

#include "common/job_spec.h"
#include "common/safetensors_file.h"
#include "support/parity.h"
#include "worker/tensors/torch.h"

namespace onestep {

inline std::string edm_component(const NetworkSpec& spec) {
  if (spec.network_class == "adm_unet") return "adm_unet";
  return spec.encoder_type == "residual" ? "song_unet, NCSN++" : "song_unet, DDPM++";
}

inline std::string preconditioner_component(const NetworkSpec& spec) {
  const std::string& name = spec.preconditioner;
  return (name == "edm" ? "EDM" : name == "vp" ? "VP" : name == "ve" ? "VE" : "iDDPM") + std::string(" preconditioner");
}

inline std::string twin_of(const SafetensorsFile& golden) {
  return "twin, " + versions_of(nlohmann::json::parse(golden.metadata().at("versions")), {"torch"});
}

// "3 x 1 x 14 x 14 fp32, labels" of a batch.
inline std::string inputs_of(const NetworkSpec& spec, std::int64_t batch, const std::string& dtype) {
  const std::string side = std::to_string(spec.image_size);
  return std::to_string(batch) + " x " + std::to_string(spec.image_channels) + " x " + side + " x " + side + (spec.label_dim > 0 ? ", labels" : "") +
         ", " + dtype;
}

// fp32 against fp32 over some tens of layers; the sums differ in their order only.
inline constexpr double kForwardBound = 1e-5, kGradientBound = 1e-4;
// bf16 has 8 bits of mantissa: 2^-9 = 2e-3 a rounding of weights and activations, some thirty layers of them, norms, softmax,
// coefficients and result in fp32: D within 1 % of fp32 (0.3 to 0.7 % measured); gradients pass every layer twice.
inline constexpr double kBf16ForwardBound = 1e-2, kBf16GradientBound = 3e-2;

// Distance of all gradients together: in bf16 small ones are mostly rounding.
class GradientDistance {
 public:
  void add(const torch::Tensor& found, const torch::Tensor& expected) {
    const auto wide = expected.to(torch::kFloat64);
    difference_ += (found.to(torch::kFloat64) - wide).square().sum().item<double>();
    norm_ += wide.square().sum().item<double>();
  }
  [[nodiscard]] double value() const { return std::sqrt(difference_ / norm_); }

 private:
  double difference_ = 0, norm_ = 0;
};

}  // namespace onestep
