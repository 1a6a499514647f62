// Adds the tensors of layers to a layout, as PyTorch names and shapes them. For the files of layouts.
#pragma once

#include <string>
#include <utility>

#include "cli/network_layouts.h"

namespace onestep {

class LayoutBuilder {
 public:
  explicit LayoutBuilder(std::string name) { layout_.name = std::move(name); }

  void parameter(const std::string& name, const Shape& shape) { layout_.parameters[name] = shape; }
  void buffer(const std::string& name, const Shape& shape) { layout_.buffers[name] = shape; }
  void pair(const std::string& name, const Shape& weight, bool bias = true) {
    parameter(name + ".weight", weight);
    if (bias) parameter(name + ".bias", {weight[0]});
  }
  void conv(const std::string& name, std::int64_t in, std::int64_t out, std::int64_t kernel,
            bool bias = true) {
    pair(name, {out, in, kernel, kernel}, bias);
  }
  void linear(const std::string& name, std::int64_t in, std::int64_t out, bool bias = true) {
    pair(name, {out, in}, bias);
  }
  void norm(const std::string& name, std::int64_t channels) { pair(name, {channels}); }

  NetworkLayout take() { return std::move(layout_); }

 private:
  NetworkLayout layout_;
};

// "name.n"
inline std::string numbered(const std::string& name, std::size_t n) {
  return name + "." + std::to_string(n);
}

}  // namespace onestep
