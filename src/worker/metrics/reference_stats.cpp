#include "worker/metrics/reference_stats.h"

#include <cstring>

#include "common/error.h"
#include "common/hash.h"
#include "common/npz_file.h"

namespace onestep {
namespace {

torch::Tensor tensor_of(const NpyArray& array) {
  auto tensor = torch::empty(array.shape, torch::kFloat64);
  std::memcpy(tensor.data_ptr<double>(), array.values.data(), array.values.size() * sizeof(double));
  return tensor;
}

NpyArray array_of(const torch::Tensor& tensor) {
  const auto values = tensor.to(torch::kFloat64).contiguous();
  const double* data = values.const_data_ptr<double>();
  return {values.sizes().vec(), {data, data + values.numel()}};
}

// The array of that key, -1 in `shape` standing for any size from 2.
torch::Tensor read_array(const NpzFile& file, const std::string& key, const std::vector<std::int64_t>& shape) {
  const auto tensor = tensor_of(file.array(key));
  bool fits = tensor.dim() == static_cast<std::int64_t>(shape.size());
  for (std::size_t d = 0; fits && d < shape.size(); ++d) {
    const std::int64_t size = tensor.size(static_cast<std::int64_t>(d));
    fits = shape[d] < 0 ? size >= 2 : size == shape[d];
  }
  const std::string where = file.path() + ": key `" + key + "`: ";
  if (!fits) {
    throw Error(ErrorCode::kMismatch,
                where + "expected shape " + c10::str(at::IntArrayRef(shape)) + ", found " + c10::str(tensor.sizes()));
  }
  if (!torch::isfinite(tensor).all().item<bool>()) {
    throw Error(ErrorCode::kCorrupt, where + "expected finite numbers, found NaN or infinity");
  }
  return tensor;
}

}  // namespace

ReferenceStats read_reference_stats(const std::string& path, std::int64_t num_features) {
  const NpzFile file(path);
  ReferenceStats reference;
  reference.sha256 = sha256_file(path);
  if (file.contains("feats")) {
    reference.features = read_array(file, "feats", {-1, num_features});
    reference.stats = feature_stats(reference.features);
  }
  if (reference.features.defined() && !file.contains("mu") && !file.contains("sigma")) return reference;
  FeatureStats stats;
  stats.mean = read_array(file, "mu", {num_features});
  stats.covariance = read_array(file, "sigma", {num_features, num_features});
  // fp32 files are symmetric up to their rounding.
  const double skew = (stats.covariance - stats.covariance.t()).abs().max().item<double>();
  if (const double scale = stats.covariance.abs().max().item<double>(); skew > 1e-5 * scale) {
    throw Error(ErrorCode::kCorrupt, path + ": key `sigma`: expected a symmetric matrix, found entries of up to " +
                                         std::to_string(scale) + " that differ by " + std::to_string(skew));
  }
  stats.covariance = (stats.covariance + stats.covariance.t()) / 2;
  if (reference.features.defined()) stats.count = reference.stats.count;
  reference.stats = stats;
  return reference;
}

std::string write_reference_stats(const std::string& path, const FeatureStats& stats) {
  return write_npz(path, {{"mu", array_of(stats.mean)}, {"sigma", array_of(stats.covariance)}});
}

}  // namespace onestep
