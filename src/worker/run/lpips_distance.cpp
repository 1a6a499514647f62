#include "worker/run/lpips_distance.h"

#include <utility>
#include <vector>

#include "common/hash.h"
#include "common/safetensors_file.h"
#include "worker/models/vgg_lpips.h"

namespace onestep {
namespace {

class LpipsDistance final : public Distance {
 public:
  explicit LpipsDistance(VggLpips network) : network_(std::move(network)) {}
  [[nodiscard]] torch::Tensor operator()(const torch::Tensor& x, const torch::Tensor& reference) const override {
    return network_(x, reference);
  }

 private:
  VggLpips network_;
};

}  // namespace

LoadedDistance load_distance(const DistillSpec& spec) {
  if (spec.distance != "lpips") return {make_distance(spec.distance), ""};
  std::vector<SafetensorsFile> files;
  std::vector<TensorView> tensors;
  std::string where, digests;
  for (const std::string& path : spec.lpips.weights) {
    files.emplace_back(path);
    tensors.insert(tensors.end(), files.back().tensors().begin(), files.back().tensors().end());
    where += (where.empty() ? "" : " and ") + path;
    digests += sha256_file(path);
  }
  return {std::make_unique<LpipsDistance>(VggLpips(tensors, where, spec.lpips)), sha256(digests)};
}

}  // namespace onestep
