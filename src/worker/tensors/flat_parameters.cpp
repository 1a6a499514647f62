#include "worker/tensors/flat_parameters.h"

#include <cstring>
#include <set>

#include "common/error.h"

namespace onestep {
namespace {

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

std::string describe(const std::string& dtype, const std::vector<std::int64_t>& shape) {
  std::string text = dtype + " [";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i ? ", " : "") + std::to_string(shape[i]);
  }
  return text + "]";
}

}  // namespace

FlatParameters::FlatParameters(torch::nn::Module& module, std::int64_t pieces, bool trainable) {
  std::int64_t length = 0;
  for (const auto& item : module.named_parameters()) {
    const auto& parameter = item.value();
    views_.push_back({item.key(), parameter.sizes().vec(), length, parameter.numel()});
    length += round_up(parameter.numel(), kFlatAlignment);
  }
  length = round_up(length, pieces * kFlatAlignment);
  values_ = torch::zeros({length});
  if (trainable) gradient_ = torch::zeros({length});

  auto parameters = module.named_parameters();
  for (const FlatView& view : views_) {
    torch::Tensor& parameter = parameters[view.name];
    const auto values = values_.narrow(0, view.offset, view.length).view(view.shape);
    {
      torch::NoGradGuard no_grad;
      values.copy_(parameter);
    }
    parameter.set_data(values);
    parameter.set_requires_grad(trainable);
    if (trainable) {
      parameter.mutable_grad() = gradient_.narrow(0, view.offset, view.length).view(view.shape);
    }
  }
}

std::vector<TensorView> named_tensors(const torch::Tensor& flat, const std::vector<FlatView>& views) {
  std::vector<TensorView> tensors;
  const auto* data = reinterpret_cast<const std::byte*>(flat.const_data_ptr<float>());
  for (const FlatView& view : views) {
    tensors.push_back({view.name, DType::kF32, view.shape,
                       {data + view.offset * sizeof(float), view.length * sizeof(float)}});
  }
  return tensors;
}

std::vector<TensorView> named_tensors(const torch::nn::Module& module) {
  std::vector<TensorView> tensors;
  for (const auto& item : module.named_parameters()) {
    const auto& parameter = item.value();
    const auto* data = reinterpret_cast<const std::byte*>(parameter.const_data_ptr<float>());
    tensors.push_back({item.key(), DType::kF32, parameter.sizes().vec(),
                       {data, static_cast<std::size_t>(parameter.numel()) * sizeof(float)}});
  }
  return tensors;
}

void load_parameters(torch::nn::Module& module, const SafetensorsFile& file) {
  std::vector<std::string> problems;
  std::set<std::string> wanted;
  auto parameters = module.named_parameters();
  for (const auto& item : parameters) {
    wanted.insert(item.key());
    const TensorView* tensor = file.find(item.key());
    if (tensor == nullptr) {
      problems.push_back(item.key() + ": missing, expected " +
                         describe("F32", item.value().sizes().vec()));
    } else if (tensor->dtype != DType::kF32 || tensor->shape != item.value().sizes().vec()) {
      problems.push_back(item.key() + ": expected " +
                         describe("F32", item.value().sizes().vec()) + ", found " +
                         describe(to_string(tensor->dtype), tensor->shape));
    }
  }
  for (const TensorView& tensor : file.tensors()) {
    if (!wanted.contains(tensor.name)) {
      problems.push_back(tensor.name + ": unexpected " +
                         describe(to_string(tensor.dtype), tensor.shape));
    }
  }
  if (!problems.empty()) {
    std::string message = file.path() + ": " + std::to_string(problems.size()) +
                          " tensors don't fit the network";
    for (const std::string& problem : problems) message += "\n  " + problem;
    throw Error(ErrorCode::kMismatch, message);
  }
  torch::NoGradGuard no_grad;
  for (auto& item : parameters) {
    const TensorView& tensor = file.at(item.key());
    std::memcpy(item.value().data_ptr<float>(), tensor.bytes.data(), tensor.bytes.size());
  }
}

}  // namespace onestep
