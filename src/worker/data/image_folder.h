// A folder of PNG and JPEG pictures, in the order of their names.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/tensors/torch.h"

namespace onestep {

class ImageFolder {
 public:
  // Lists every file below `path` that ends in .png, .jpg or .jpeg (in any case), sorted by its relative name, at most `limit` of
  // them (0: all). Errors: kNotFound when there is no folder or no picture in it.
  ImageFolder(const std::string& path, std::int64_t limit);
  [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(files_.size()); }
  [[nodiscard]] const std::string& file(std::int64_t index) const { return files_.at(static_cast<std::size_t>(index)); }
  // [C,H,W] uint8, C 1 or 3. Errors: kCorrupt naming the file.
  [[nodiscard]] torch::Tensor read(std::int64_t index) const;

 private:
  std::vector<std::string> files_;  // whole paths
};

}  // namespace onestep
