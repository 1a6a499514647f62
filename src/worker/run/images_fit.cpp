#include "worker/run/images_fit.h"

#include "common/error.h"

namespace onestep {

void check_images_fit(const NetworkSpec& network, const ImageDataset& dataset, const std::string& path) {
  const auto& images = dataset.images();
  const bool labels_fit = network.label_dim == 0 || network.label_dim == dataset.num_classes();
  if (images.size(1) != network.image_channels || images.size(2) != network.image_size ||
      images.size(3) != network.image_size || !labels_fit) {
    throw Error(ErrorCode::kMismatch,
                path + ": expected images of " + std::to_string(network.image_channels) + " x " +
                    std::to_string(network.image_size) + " x " + std::to_string(network.image_size) + " and " +
                    std::to_string(network.label_dim) + " classes as the network has, found " +
                    std::to_string(images.size(1)) + " x " + std::to_string(images.size(2)) + " x " +
                    std::to_string(images.size(3)) + " and " + std::to_string(dataset.num_classes()));
  }
}

}  // namespace onestep
