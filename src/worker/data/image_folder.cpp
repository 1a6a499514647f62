#include "worker/data/image_folder.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <system_error>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/image_decode.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;

bool is_picture(const fs::path& path) {
  std::string end = path.extension().string();
  std::transform(end.begin(), end.end(), end.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return end == ".png" || end == ".jpg" || end == ".jpeg";
}

}  // namespace

ImageFolder::ImageFolder(const std::string& path, std::int64_t limit) {
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    throw Error(ErrorCode::kNotFound, path + ": expected a folder of pictures, found none");
  }
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    if (entry.is_regular_file() && is_picture(entry.path())) files_.push_back(entry.path().string());
  }
  if (files_.empty()) {
    throw Error(ErrorCode::kNotFound, path + ": expected .png, .jpg or .jpeg files in it or below, found none");
  }
  std::sort(files_.begin(), files_.end());
  if (limit > 0 && std::ssize(files_) > limit) files_.resize(static_cast<std::size_t>(limit));
}

torch::Tensor ImageFolder::read(std::int64_t index) const {
  const MappedFile mapped(file(index));
  const DecodedImage image = decode_image(mapped.bytes(), file(index));
  return torch::from_blob(const_cast<std::uint8_t*>(image.pixels.data()), {image.height, image.width, image.channels}, torch::kUInt8)
      .permute({2, 0, 1})
      .clone(torch::MemoryFormat::Contiguous);
}

}  // namespace onestep
