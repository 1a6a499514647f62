#include "worker/models/named_weights.h"

#include <cstring>
#include <set>

#include "common/error.h"

namespace onestep {
namespace {

std::string describe(DType dtype, const std::vector<std::int64_t>& shape) {
  std::string text = std::string(to_string(dtype)) + " [";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace

std::map<std::string, torch::Tensor> take_weights(const std::vector<TensorView>& found,
                                                  const std::vector<ExpectedTensor>& expected, const std::string& where,
                                                  const std::function<bool(const std::string&)>& is_ignored) {
  std::vector<std::string> problems;
  std::map<std::string, const TensorView*> by_name;
  for (const TensorView& view : found) {
    if (!by_name.emplace(view.name, &view).second) problems.push_back(view.name + ": expected once, found twice");
  }
  std::map<std::string, torch::Tensor> weights;
  for (const ExpectedTensor& tensor : expected) {
    const auto entry = by_name.find(tensor.name);
    if (entry == by_name.end()) {
      problems.push_back(tensor.name + ": missing, expected " + describe(DType::kF32, tensor.shape));
      continue;
    }
    const TensorView& view = *entry->second;
    by_name.erase(entry);
    if (view.dtype != DType::kF32 || view.shape != tensor.shape) {
      problems.push_back(tensor.name + ": expected " + describe(DType::kF32, tensor.shape) + ", found " +
                         describe(view.dtype, view.shape));
      continue;
    }
    torch::Tensor copy = torch::empty(view.shape);
    std::memcpy(copy.data_ptr<float>(), view.bytes.data(), view.bytes.size());
    weights.emplace(tensor.name, copy);
  }
  for (const auto& [name, view] : by_name) {
    if (!is_ignored(name)) problems.push_back(name + ": unexpected " + describe(view->dtype, view->shape));
  }
  if (!problems.empty()) {
    std::string message = where + ": " + std::to_string(problems.size()) + " tensors don't fit the network";
    for (const std::string& problem : problems) message += "\n  " + problem;
    throw Error(ErrorCode::kMismatch, message);
  }
  return weights;
}

}  // namespace onestep
