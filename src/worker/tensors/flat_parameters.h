// One network, one buffer: parameters and gradients of a module as views of two contiguous tensors. Law 3.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/safetensors_file.h"
#include "common/safetensors_index.h"
#include "worker/tensors/torch.h"

namespace onestep {

constexpr std::int64_t kFlatAlignment = 1024;  // elements: views and pieces start at multiples of it

struct FlatView {
  std::string name;  // the module's parameter name
  std::vector<std::int64_t> shape;
  std::int64_t offset = 0, length = 0;  // elements within the flat buffer
};

// Where a network computes, and in what.
struct FlatPlacement {
  torch::Device device = torch::kCPU;
  torch::ScalarType dtype = torch::kFloat32;  // or bfloat16
};

// Moves a module's parameters into one flat fp32 tensor and, when they are trained, their gradients into another. The module must not be
// moved or re-registered afterwards. Padding elements are zero and stay zero.
// With a placement of their own the module's parameters and buffers go to that device, and the parameters become views of `shadow`, which is values()
// rounded to the dtype; the gradients have that dtype too. A frozen network's kernels are then stored channels last, once, instead of at every use.
class FlatParameters {
 public:
  // pieces: the largest legal rank count (M); the length is a multiple of pieces * kFlatAlignment.
  FlatParameters(torch::nn::Module& module, std::int64_t pieces, bool trainable, const FlatPlacement& placement = {});

  [[nodiscard]] torch::Tensor& values() { return values_; }          // fp32 [length]: what the optimizer moves
  // What the network computes with, [length]: values() itself in fp32.
  [[nodiscard]] torch::Tensor& shadow() { return shadow_; }
  [[nodiscard]] bool has_shadow() const { return shadow_.scalar_type() != torch::kFloat32; }
  // On grid kernels: on a device, or rounded.
  [[nodiscard]] bool is_placed() const { return has_shadow() || !values_.is_cpu(); }
  [[nodiscard]] const torch::Tensor& values() const { return values_; }
  [[nodiscard]] torch::Tensor& gradient() { return gradient_; }      // [length]; autograd adds into it
  [[nodiscard]] std::int64_t length() const { return values_.size(0); }
  [[nodiscard]] const std::vector<FlatView>& views() const { return views_; }
  void zero_gradient() { gradient_.zero_(); }

 private:
  torch::Tensor values_, shadow_, gradient_;
  std::vector<FlatView> views_;
};

void move_buffers(torch::nn::Module& module, const torch::Device& device);

// Spans of `flat` (contiguous fp32, laid out as `views`) under the views' names, for writing and hashing. `flat` must outlive them.
std::vector<TensorView> named_tensors(const torch::Tensor& flat, const std::vector<FlatView>& views);
// The same, and the module's buffers (fp32), which no optimizer moves. `module` must outlive them too.
std::vector<TensorView> named_tensors(const torch::Tensor& flat, const std::vector<FlatView>& views,
                                      const torch::nn::Module& module);
// The module's parameters and buffers themselves, for modules that own theirs. `module` must outlive them.
std::vector<TensorView> named_tensors(const torch::nn::Module& module);

// Copies every tensor of `file` into the parameter or buffer of the same name. Strict: every missing, extra, mis-shaped or mis-typed tensor is
// listed at once. Errors: kMismatch naming the file.
// dtype: of the file's parameters, kF32, kF16 or kBF16; buffers are F32 in any case.
void load_parameters(torch::nn::Module& module, const SafetensorsFile& file, DType dtype = DType::kF32);
void load_parameters(torch::nn::Module& module, const TensorFiles& files);

}  // namespace onestep
