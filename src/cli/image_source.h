// Where pictures come from: a folder or a zip archive of PNG and JPEG files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace onestep {

struct SourceImage {
  std::string name;  // path within the source, '/' between folders
  std::uint64_t bytes = 0;
  std::uint64_t version = 0;  // changes when the content does: time of change, or CRC in an archive
};

class ImageSource {
 public:
  using Reader = std::function<std::vector<std::byte>(const SourceImage&)>;

  virtual ~ImageSource() = default;
  // Every *.png, *.jpg and *.jpeg (any case), by name; subfolders included.
  [[nodiscard]] const std::vector<SourceImage>& images() const { return images_; }
  // Other files but dataset.json, which are left out.
  [[nodiscard]] std::int64_t num_others() const { return num_others_; }
  // dataset.json at the top; nullopt where there is none.
  [[nodiscard]] const std::optional<std::string>& labels_text() const { return labels_text_; }
  // Reads whole files, for one thread. Errors: kIo, kNotFound, kCorrupt.
  [[nodiscard]] virtual Reader reader() const = 0;

 protected:
  std::vector<SourceImage> images_;
  std::int64_t num_others_ = 0;
  std::optional<std::string> labels_text_;
};

// A folder, or a file that is a zip archive. Errors: kNotFound, kCorrupt, kIo.
std::unique_ptr<ImageSource> open_image_source(const std::string& path);

}  // namespace onestep
