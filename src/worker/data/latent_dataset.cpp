#include "worker/data/latent_dataset.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <span>

#include "common/error.h"
#include "common/hash.h"
#include "common/safetensors_file.h"

namespace onestep {
namespace {

constexpr const char* kLatentFormat = "onestep-latents-1";

std::span<const std::byte> bytes_in(const torch::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

std::string latent_metadata(const SafetensorsFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end()) {
    throw Error(ErrorCode::kCorrupt, file.path() + ": metadata `" + key + "`: expected a text, found none (another format?)");
  }
  return found->second;
}

torch::Tensor copy_of(const SafetensorsFile& file, const char* name, DType dtype, std::size_t dimensions) {
  const TensorView& view = file.at(name);
  if (view.dtype != dtype || view.shape.size() != dimensions || num_elements(view) == 0) {
    throw Error(ErrorCode::kCorrupt, file.path() + ": tensor `" + name + "`: expected " + to_string(dtype) + " of " +
                                         std::to_string(dimensions) + " dimensions, not empty, found " + to_string(view.dtype) + " of " +
                                         std::to_string(view.shape.size()));
  }
  auto tensor = torch::empty(view.shape, dtype == DType::kI64 ? torch::kInt64 : torch::kFloat32);
  std::memcpy(tensor.data_ptr(), view.bytes.data(), view.bytes.size());
  file.release(view);
  return tensor;
}

}  // namespace

std::string LatentDataset::digest() const {
  Sha256 hash;
  const std::string facts = std::string(kLatentFormat) + " " + c10::str(latents.sizes()) + " " + std::to_string(num_classes) + " " +
                            images_sha256 + " " + autoencoder_sha256 + "\n";
  hash.update(facts.data(), facts.size());
  hash.update(latents.const_data_ptr(), latents.nbytes());
  hash.update(labels.const_data_ptr(), labels.nbytes());
  return hash.finish();
}

void write_latents(const std::string& path, const LatentDataset& set) {
  write_safetensors(path,
                    {{"latents", DType::kF32, set.latents.sizes().vec(), bytes_in(set.latents)},
                     {"labels", DType::kI64, set.labels.sizes().vec(), bytes_in(set.labels)}},
                    {{"onestep_format", kLatentFormat},
                     {"num_classes", std::to_string(set.num_classes)},
                     {"images_sha256", set.images_sha256},
                     {"autoencoder_sha256", set.autoencoder_sha256},
                     {"sha256", set.digest()}});
}

LatentDataset read_latents(const std::string& path) {
  const SafetensorsFile file(path);
  const auto corrupt = [&](const std::string& what, const std::string& expected, const std::string& found) {
    throw Error(ErrorCode::kCorrupt, path + ": " + what + ": expected " + expected + ", found " + found);
  };
  if (const std::string format = latent_metadata(file, "onestep_format"); format != kLatentFormat) {
    corrupt("metadata `onestep_format`", kLatentFormat, format);
  }
  LatentDataset set;
  const std::string classes = latent_metadata(file, "num_classes");
  const auto [end, problem] = std::from_chars(classes.data(), classes.data() + classes.size(), set.num_classes);
  if (problem != std::errc() || end != classes.data() + classes.size() || set.num_classes < 0) {
    corrupt("metadata `num_classes`", "a number of 0 or more", classes);
  }
  set.images_sha256 = latent_metadata(file, "images_sha256");
  set.autoencoder_sha256 = latent_metadata(file, "autoencoder_sha256");
  set.latents = copy_of(file, "latents", DType::kF32, 4);
  set.labels = copy_of(file, "labels", DType::kI64, 1);
  if (set.labels.size(0) != set.size()) corrupt("tensor `labels`", std::to_string(set.size()) + " elements", std::to_string(set.labels.size(0)));
  if (const std::string found = set.digest(), expected = latent_metadata(file, "sha256"); found != expected) {
    corrupt("the digest of its content", expected, found);
  }
  const auto least = set.labels.min().item<std::int64_t>(), most = set.labels.max().item<std::int64_t>();
  if (least < 0 || most >= std::max<std::int64_t>(1, set.num_classes)) {
    corrupt("tensor `labels`", "classes below " + std::to_string(std::max<std::int64_t>(1, set.num_classes)),
            std::to_string(least) + " to " + std::to_string(most));
  }
  return set;
}

}  // namespace onestep
