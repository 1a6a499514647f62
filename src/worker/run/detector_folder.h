// A trained digit detector on disk: config.json (format "onestep-detector") beside model.safetensors.
#pragma once

#include <string>

#include "worker/models/digit_detector.h"

namespace onestep {

struct LoadedDetector {
  DigitDetector module{nullptr};
  std::string sha256;
};

std::string save_detector(const std::string& folder, const DigitDetector& detector);
// Errors: kNotFound, kCorrupt, kMismatch.
LoadedDetector load_detector(const std::string& folder);

}  // namespace onestep
