#include "worker/run/lpips_distance.h"

#include <utility>
#include <vector>

#include "common/config.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/safetensors_file.h"
#include "worker/models/vgg_lpips.h"
#include "worker/run/diffusers_folder.h"

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

// A distance of the images that two latents stand for. Decoder: AutoencoderKl or TinyAutoencoder.
template <class Decoder>
class DecodedDistance final : public Distance {
 public:
  DecodedDistance(Decoder decoder, std::unique_ptr<Distance> of_images)
      : decoder_(std::move(decoder)), of_images_(std::move(of_images)) {}
  [[nodiscard]] torch::Tensor operator()(const torch::Tensor& x, const torch::Tensor& reference) const override {
    const auto decode = [this](const torch::Tensor& latents) { return Decoder(decoder_)->images_of(latents); };
    torch::Tensor expected;
    {
      const torch::NoGradGuard no_grad;
      expected = decode(reference);
    }
    return (*of_images_)(decode(x), expected);
  }

 private:
  Decoder decoder_;
  std::unique_ptr<Distance> of_images_;
};

std::unique_ptr<Distance> decoded(const std::string& folder, std::unique_ptr<Distance> of_images, bool recompute) {
  const std::string where = folder + "/config.json";
  const nlohmann::json config = read_json_file(where);
  const auto name = config.is_object() ? config.value("_class_name", nlohmann::json()) : nlohmann::json();
  if (name == "AutoencoderTiny") {
    return std::make_unique<DecodedDistance<TinyAutoencoder>>(load_tiny_autoencoder(folder), std::move(of_images));
  }
  if (name == "AutoencoderKL") {
    AutoencoderKl decoder = load_autoencoder_kl(folder);
    decoder->recompute_in_backward(recompute);
    return std::make_unique<DecodedDistance<AutoencoderKl>>(std::move(decoder), std::move(of_images));
  }
  throw Error(ErrorCode::kMismatch, where + ": _class_name: expected AutoencoderKL or AutoencoderTiny, found " + name.dump());
}

}  // namespace

LoadedDistance load_distance(const DistillSpec& spec, bool recompute, const torch::Device& device) {
  if (spec.distance != "lpips") return {make_distance(spec.distance), "", ""};
  std::vector<SafetensorsFile> files;
  std::vector<TensorView> tensors;
  std::string where, digests;
  for (const std::string& path : spec.lpips.weights) {
    files.emplace_back(path);
    tensors.insert(tensors.end(), files.back().tensors().begin(), files.back().tensors().end());
    where += (where.empty() ? "" : " and ") + path;
    digests += sha256_file(path);
  }
  VggLpips network(tensors, where, spec.lpips);
  if (!device.is_cpu()) network.move_to(device, torch::kBFloat16);
  LoadedDistance loaded{std::make_unique<LpipsDistance>(std::move(network)), sha256(digests), ""};
  if (!spec.decoder.empty()) {
    loaded.distance = decoded(spec.decoder, std::move(loaded.distance), recompute);
    loaded.decoder_sha256 = sha256(sha256_file(spec.decoder + "/config.json") +
                                   sha256_file(spec.decoder + "/diffusion_pytorch_model.safetensors"));
  }
  return loaded;
}

}  // namespace onestep
