#include "worker/tensors/flat_parameters.h"

#include <cstring>
#include <set>
#include <utility>

#include "common/error.h"
#include "worker/tensors/weight_type.h"

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

using NamedTensor = std::pair<std::string, torch::Tensor>;

std::vector<NamedTensor> buffers_of(const torch::nn::Module& module) {
  std::vector<NamedTensor> buffers;
  for (const auto& item : module.named_buffers()) buffers.emplace_back(item.key(), item.value());
  return buffers;
}

std::vector<NamedTensor> state_of(const torch::nn::Module& module) {
  std::vector<NamedTensor> state;
  for (const auto& item : module.named_parameters()) state.emplace_back(item.key(), item.value());
  for (NamedTensor& buffer : buffers_of(module)) state.push_back(std::move(buffer));
  return state;
}

TensorView view_of(const NamedTensor& named) {
  const auto& [name, tensor] = named;
  const auto* data = reinterpret_cast<const std::byte*>(tensor.const_data_ptr<float>());
  return {name, DType::kF32, tensor.sizes().vec(), {data, static_cast<std::size_t>(tensor.numel()) * sizeof(float)}};
}

}  // namespace

FlatParameters::FlatParameters(torch::nn::Module& module, std::int64_t pieces, bool trainable, const FlatPlacement& placement) {
  const torch::NoGradGuard no_grad;
  std::int64_t length = 0;
  for (const auto& item : module.named_parameters()) {
    const auto& parameter = item.value();
    views_.push_back({item.key(), parameter.sizes().vec(), length, parameter.numel()});
    length += round_up(parameter.numel(), kFlatAlignment);
  }
  length = round_up(length, pieces * kFlatAlignment);
  values_ = torch::zeros({length});
  auto parameters = module.named_parameters();
  const auto part = [](const torch::Tensor& flat, const FlatView& view) { return flat.narrow(0, view.offset, view.length).view(view.shape); };
  for (const FlatView& view : views_) part(values_, view).copy_(parameters[view.name]);

  values_ = values_.to(placement.device);
  shadow_ = values_.to(placement.dtype);
  if (trainable) gradient_ = torch::zeros_like(shadow_);
  for (const FlatView& view : views_) {
    torch::Tensor& parameter = parameters[view.name];
    torch::Tensor values = part(shadow_, view);
    if (is_placed() && !trainable && values.dim() == 4) values = values.contiguous(torch::MemoryFormat::ChannelsLast);
    parameter.set_data(values);
    parameter.set_requires_grad(trainable);
    if (trainable) parameter.mutable_grad() = part(gradient_, view);
  }
  move_buffers(module, placement.device);
}

void move_buffers(torch::nn::Module& module, const torch::Device& device) {
  for (auto& buffer : module.named_buffers()) {
    if (buffer.value().device() != device) buffer.value().set_data(buffer.value().to(device));
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

std::vector<TensorView> named_tensors(const torch::Tensor& flat, const std::vector<FlatView>& views,
                                      const torch::nn::Module& module) {
  auto tensors = named_tensors(flat, views);
  for (const NamedTensor& buffer : buffers_of(module)) tensors.push_back(view_of(buffer));
  return tensors;
}

std::vector<TensorView> named_tensors(const torch::nn::Module& module) {
  std::vector<TensorView> tensors;
  for (const NamedTensor& named : state_of(module)) tensors.push_back(view_of(named));
  return tensors;
}

namespace {

// One file or many: both find tensors by name.
template <typename Files>
void load_from(torch::nn::Module& module, const Files& file, DType parameters_dtype) {
  std::vector<std::string> problems;
  std::set<std::string> wanted;
  const auto state = state_of(module);
  const std::size_t num_parameters = state.size() - buffers_of(module).size();
  const auto expected_dtype = [&](std::size_t i) { return i < num_parameters ? parameters_dtype : DType::kF32; };
  for (std::size_t i = 0; i < state.size(); ++i) {
    const auto& [name, value] = state[i];
    const DType dtype = expected_dtype(i);
    wanted.insert(name);
    const TensorView* tensor = file.find(name);
    if (tensor == nullptr) {
      problems.push_back(name + ": missing, expected " + describe(to_string(dtype), value.sizes().vec()));
    } else if (tensor->dtype != dtype || tensor->shape != value.sizes().vec()) {
      problems.push_back(name + ": expected " + describe(to_string(dtype), value.sizes().vec()) + ", found " +
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
  for (std::size_t i = 0; i < state.size(); ++i) {
    const auto& [name, value] = state[i];
    const TensorView& tensor = file.at(name);
    if (expected_dtype(i) == DType::kF32) {
      std::memcpy(value.template data_ptr<float>(), tensor.bytes.data(), tensor.bytes.size());
    } else {
      const auto stored = torch::empty(value.sizes(), weight_type(parameters_dtype).value());
      std::memcpy(stored.data_ptr(), tensor.bytes.data(), tensor.bytes.size());
      value.copy_(stored);
    }
    file.release(tensor);  // so that a network takes its size in memory once, not twice
  }
}

}  // namespace

void load_parameters(torch::nn::Module& module, const SafetensorsFile& file, DType dtype) { load_from(module, file, dtype); }
void load_parameters(torch::nn::Module& module, const TensorFiles& files) { load_from(module, files, DType::kF32); }

}  // namespace onestep
