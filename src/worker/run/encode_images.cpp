#include "worker/run/encode_images.h"

#include <algorithm>
#include <vector>

#include "common/error.h"

namespace onestep {

void check_images_fit(const AutoencoderKlConfig& config, const ImageDataset& dataset, const std::string& path) {
  const auto& images = dataset.images();
  const auto factor = std::int64_t{1} << (config.block_out_channels.size() - 1);
  if (images.size(1) == config.in_channels && images.size(2) % factor == 0 && images.size(3) % factor == 0) return;
  throw Error(ErrorCode::kMismatch, path + ": expected images of " + std::to_string(config.in_channels) + " channels and a side that " +
                                        std::to_string(factor) + " divides, as the autoencoder has, found " +
                                        std::to_string(images.size(1)) + " x " + std::to_string(images.size(2)) + " x " +
                                        std::to_string(images.size(3)));
}

torch::Tensor posterior_means(AutoencoderKl& vae, const ImageDataset& dataset, std::int64_t batch,
                              const std::function<void(std::int64_t)>& done) {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> means;
  for (std::int64_t first = 0; first < dataset.size(); first += batch) {
    const std::int64_t count = std::min(batch, dataset.size() - first);
    means.push_back(vae->encode(dataset.images().narrow(0, first, count)).mean);
    done(first + count);
  }
  return torch::cat(means).contiguous(torch::MemoryFormat::Contiguous);
}

}  // namespace onestep
