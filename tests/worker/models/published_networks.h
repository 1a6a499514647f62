// A network at its published size against its PyTorch twin: weights and input are keyed draws on both sides, a thousand values
// are compared.
#pragma once

#include <gtest/gtest.h>

#include <cmath>

#include "common/config.h"
#include "worker/models/edm_parity.h"
#include "worker/models/golden_tensors.h"
#include "worker/models/initialize.h"
#include "worker/models/model_factory.h"

namespace onestep {

inline constexpr std::uint64_t kSeed = 20;
inline constexpr std::int64_t kNumProbes = 1000, kStride = 7919;

// published_fill of tools/golden/make_edm_golden.py.
inline void fill_published(torch::nn::Module& module) {
  torch::NoGradGuard no_grad;
  for (auto& item : module.named_parameters()) {
    const std::string& name = item.key();
    torch::Tensor& p = item.value();
    if (name.find("norm") != std::string::npos) {
      fill_keyed_uniform(p, kSeed, name, 0.3);
      if (name.ends_with(".weight")) p.add_(1.0);
    } else if (name.ends_with(".bias")) {
      fill_keyed_uniform(p, kSeed, name, 0.1);
    } else {
      fill_keyed_uniform(p, kSeed, name, std::sqrt(3.0 / static_cast<double>(p.numel() / p.size(0))));
    }
  }
  for (auto& item : module.named_buffers()) {
    if (item.key().ends_with("freqs")) fill_keyed_uniform(item.value(), kSeed, item.key(), 16.0);
  }
}

inline torch::Tensor keyed(const std::string& name, at::IntArrayRef shape, double bound) {
  torch::Tensor tensor = torch::empty(shape);
  fill_keyed_uniform(tensor, kSeed, name, bound);
  return tensor;
}

inline torch::Tensor probed(const torch::Tensor& tensor, std::int64_t count) {
  const auto flat = tensor.detach().contiguous().flatten();
  return flat.index_select(0, (torch::arange(count) * kStride).remainder(flat.size(0)));
}

inline void expect_published(const std::string& golden_file, const std::string& name, std::int64_t batch,
             const std::vector<std::string>& gradients) {
  const SafetensorsFile golden(golden_path(golden_file));
  const std::string path = ONESTEP_SOURCE_DIR "/configs/networks/" + name + ".json";
  const NetworkSpec spec = network_spec_from_json(read_json_file(path), path);
  const auto net = make_denoiser(spec, 0);
  fill_published(net->module());
  const auto sigma = torch::tensor({0.4f, 12.5f}).narrow(0, 0, batch);
  const auto scale = (sigma.to(torch::kFloat64).square() + 0.25).sqrt().to(torch::kFloat32);
  auto x = keyed("input.x", {batch, 3, spec.image_size, spec.image_size}, std::sqrt(3.0)) * per_sample(scale);
  Condition condition;
  if (spec.label_dim > 0) condition.labels = torch::tensor({3, 8}).narrow(0, 0, batch);
  x.requires_grad_(true);
  const auto y = net->denoise(x, sigma, condition);
  // fp32 against fp32 through some hundred layers.
  ParityRow row({edm_component(spec), twin_of(golden), name + ", published size, " + inputs_of(spec, batch, "fp32"), kRelativeNorm});
  row.forward(relative_error(probed(y.detach(), kNumProbes), tensor_of(golden.at(name + ".output"))), kForwardBound);
  const auto wide = y.detach().to(torch::kFloat64);
  const auto moments = torch::stack({wide.mean(), wide.std()}).to(torch::kFloat32);
  row.forward(relative_error(moments, tensor_of(golden.at(name + ".moments"))), kForwardBound, "moments");
  (y * keyed("input.probe", x.sizes(), 1.0)).sum().backward();
  const auto parameters = net->module().named_parameters();
  for (const std::string& key : gradients) {
    const auto gradient = key == "x" ? x.grad() : parameters[key].grad();
    row.backward(relative_error(probed(gradient, kNumProbes), tensor_of(golden.at(name + ".grad." + key))), kGradientBound, key);
  }
  const auto norms = tensor_of(golden.at(name + ".grad_norms"));
  std::int64_t index = 0;
  for (const auto& item : parameters) {
    if (!item.value().grad().defined() || item.key().find("map_augment") != std::string::npos) continue;
    const double norm = norms[index++].item<double>();
    row.backward(std::abs(item.value().grad().to(torch::kFloat64).norm().item<double>() - norm) / norm, kGradientBound, "norm of " + item.key());
  }
  EXPECT_EQ(index, norms.size(0));
}

}  // namespace onestep
