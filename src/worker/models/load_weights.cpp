#include "worker/models/load_weights.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

#include "common/error.h"
#include "worker/tensors/weight_type.h"

namespace onestep {
namespace {

constexpr std::int64_t kPiece = 1 << 20;  // elements

std::string shape_text(at::IntArrayRef shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

// Names sorted, with what is wrong with each.
std::map<std::string, std::string> problems_of(const torch::OrderedDict<std::string, torch::Tensor>& parameters,
                                               const std::map<std::string, const TensorView*>& tensors) {
  std::map<std::string, std::string> problems;
  for (const auto& item : parameters) {
    const std::string expected = "expected F32, F16 or BF16 " + shape_text(item.value().sizes());
    const auto found = tensors.find(item.key());
    if (found == tensors.end()) {
      problems[item.key()] = "missing, " + expected;
    } else if (!weight_type(found->second->dtype) || found->second->shape != item.value().sizes()) {
      problems[item.key()] =
          expected + ", found " + to_string(found->second->dtype) + " " + shape_text(found->second->shape);
    }
  }
  for (const auto& [name, tensor] : tensors) {
    if (parameters.contains(name)) continue;
    problems[name] = std::string("unexpected ") + to_string(tensor->dtype) + " " + shape_text(tensor->shape);
  }
  return problems;
}

// Piece by piece: a file's tensors need not be aligned, nor of the parameter's dtype, nor on its device.
void copy(const TensorView& from, torch::Tensor& to, const std::function<void(std::span<const std::byte>)>& copied) {
  const auto type = *weight_type(from.dtype);
  const auto flat = to.view({-1});
  const auto size = static_cast<std::int64_t>(size_of(from.dtype));
  for (std::int64_t first = 0; first < flat.numel(); first += kPiece) {
    const std::int64_t length = std::min(kPiece, flat.numel() - first);
    const auto bytes = from.bytes.subspan(static_cast<std::size_t>(first * size), static_cast<std::size_t>(length * size));
    torch::Tensor piece = flat.narrow(0, first, length);
    if (to.is_cpu() && to.scalar_type() == type) {
      std::memcpy(piece.mutable_data_ptr(), bytes.data(), bytes.size());
    } else {
      const auto values = torch::empty({length}, type);
      std::memcpy(values.mutable_data_ptr(), bytes.data(), bytes.size());
      piece.copy_(values);
    }
    if (copied) copied(bytes);
  }
}

}  // namespace

void load_weights(torch::nn::Module& module, const std::vector<TensorView>& tensors, const std::string& where,
                  const std::function<void(std::span<const std::byte>)>& copied) {
  std::map<std::string, const TensorView*> by_name;
  std::map<std::string, std::string> twice;
  for (const TensorView& tensor : tensors) {
    if (!by_name.emplace(tensor.name, &tensor).second) twice[tensor.name] = "expected once, found under two names";
  }
  auto parameters = module.named_parameters();
  auto problems = problems_of(parameters, by_name);
  problems.merge(twice);
  if (!problems.empty()) {
    std::string message = where + ": " + std::to_string(problems.size()) + " tensors don't fit the network";
    for (const auto& [name, problem] : problems) message += "\n  " + name + ": " + problem;
    throw Error(ErrorCode::kMismatch, message);
  }
  torch::NoGradGuard no_grad;
  for (auto& item : parameters) copy(*by_name.at(item.key()), item.value(), copied);
}

}  // namespace onestep
