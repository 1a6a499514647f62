// Whether an image file has what a network is trained on.
#pragma once

#include <string>

#include "common/job_spec.h"
#include "worker/data/image_dataset.h"

namespace onestep {

// Errors: kMismatch naming `path`, unless the images have the network's channels and sides, and its classes where it has any.
void check_images_fit(const NetworkSpec& network, const ImageDataset& dataset, const std::string& path);

}  // namespace onestep
