#include "worker/run/module_buffers.h"

#include <vector>

#include "common/error.h"

namespace onestep {

nlohmann::json buffers_to_json(const torch::nn::Module& module) {
  auto json = nlohmann::json::object();
  for (const auto& item : module.named_buffers()) {
    const auto values = item.value().cpu().contiguous();
    json[item.key()] = std::vector<float>(values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.numel());
  }
  return json;
}

void load_buffers(torch::nn::Module& module, const nlohmann::json& buffers, const std::string& where) {
  const auto problem = [&where](const std::string& what) {
    throw Error(ErrorCode::kMismatch, where + ": buffers: " + what);
  };
  if (!buffers.is_object()) problem("expected an object, found " + std::string(buffers.type_name()));
  auto named = module.named_buffers();
  for (const auto& [name, values] : buffers.items()) {
    if (!named.contains(name)) problem("expected none named \"" + name + "\", found it");
  }
  torch::NoGradGuard no_grad;
  for (auto& item : named) {
    const auto found = buffers.find(item.key());
    const auto count = static_cast<std::size_t>(item.value().numel());
    const bool fits = found != buffers.end() && found->is_array() && found->size() == count;
    if (!fits) {
      problem("expected \"" + item.key() + "\" of " + std::to_string(count) + " numbers, found " +
              (found == buffers.end() ? "nothing" : found->is_array() ? std::to_string(found->size()) : found->type_name()));
    }
    std::vector<float> values;
    for (const auto& value : *found) {
      if (!value.is_number()) problem("\"" + item.key() + "\": expected numbers, found " + value.type_name());
      values.push_back(value.get<float>());
    }
    item.value().copy_(torch::tensor(values).view(item.value().sizes()));
  }
}

}  // namespace onestep
