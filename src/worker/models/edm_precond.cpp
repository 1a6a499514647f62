#include "worker/models/edm_precond.h"

#include "common/error.h"

namespace onestep {

EdmPrecond::EdmPrecond(const NetworkSpec& spec) : spec_(spec), schedule_(spec.sigma_data) {
  model = register_module("model", AdmUnet(spec));
}

torch::Tensor EdmPrecond::denoise(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition) {
  const double sigma_data = spec_.sigma_data;
  const auto variance = t.square() + sigma_data * sigma_data;
  const auto c_skip = sigma_data * sigma_data / variance;
  const auto c_out = t * sigma_data * variance.rsqrt();
  const auto c_in = variance.rsqrt();
  const auto c_noise = t.log() / 4;
  torch::Tensor labels;
  if (spec_.label_dim > 0 && condition.labels.defined()) {
    labels = torch::one_hot(condition.labels, spec_.label_dim).to(torch::kFloat32);
  }
  const auto output = model(per_sample(c_in) * x_t, c_noise, labels);
  return torch::addcmul(per_sample(c_skip) * x_t, per_sample(c_out), output);
}

}  // namespace onestep
