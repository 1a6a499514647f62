// The image file: pictures as bytes and their classes in one HDF5 file, with a digest of its
// content (docs/formats.md).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace onestep {

struct ImageFileInfo {
  std::int64_t count = 0, channels = 0, height = 0, width = 0;
  std::int64_t num_classes = 0;  // 1..65,536; 0: no labels
  std::string sha256;            // of the bytes of `images` followed by those of `labels`
  std::string source, recipe;    // for people; "" where the file says nothing

  [[nodiscard]] std::int64_t row_bytes() const { return channels * height * width; }
  // Bytes a label takes in the file: 0 without labels, 1 up to 256 classes, 2 beyond.
  [[nodiscard]] int label_bytes() const {
    return num_classes == 0 ? 0 : num_classes <= 256 ? 1 : 2;
  }
};

// Where the datasets' bytes begin in the file.
struct ImageFileOffsets {
  std::uint64_t images = 0, labels = 0;
};

// A finished image file opened for reading. Thread-safe after construction. Move-only.
class ImageFile {
 public:
  // Checks format, version, attributes, shapes, types and layout; not the content: verify().
  // Errors: kNotFound; kCorrupt naming file, what, expected and found.
  explicit ImageFile(const std::string& path);
  ImageFile(ImageFile&& other) noexcept;
  ImageFile& operator=(ImageFile&& other) noexcept;
  ImageFile(const ImageFile&) = delete;
  ImageFile& operator=(const ImageFile&) = delete;
  ~ImageFile();

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const ImageFileInfo& info() const { return info_; }
  // Rows first.. into `bytes`, a whole number of rows; uint8 [n,C,H,W]. Errors: kIo; kCorrupt for a
  // short read.
  void read_images(std::int64_t first, std::span<std::uint8_t> bytes) const;
  // [count]; empty without labels. Errors: also kCorrupt for a label that is no class.
  [[nodiscard]] std::vector<std::int64_t> read_labels() const;
  // Reads everything and compares the digest and the labels' range; returns the digest. Errors:
  // kCorrupt.
  std::string verify() const;
  // The digest of these bytes as the file's content, compared with the stored one: for callers that
  // have read them anyway.
  std::string check_digest(std::span<const std::uint8_t> images) const;

 private:
  [[nodiscard]] std::vector<std::uint8_t> label_bytes() const;

  std::string path_;
  ImageFileInfo info_;
  ImageFileOffsets offsets_;
  int descriptor_ = -1;
};

// Creates an image file with room for everything, all bytes unwritten and the digest blank, under
// exactly this path (a temporary one); equal infos, equal bytes. `labels` as info.label_bytes()
// says, little-endian. Errors: kIo, kInternal.
ImageFileOffsets create_image_file(const std::string& path, const ImageFileInfo& info,
                                   std::span<const std::uint8_t> labels);
// Writes the digest, the last thing that is missing. Errors: kIo, kCorrupt.
void seal_image_file(const std::string& path, const std::string& sha256);

}  // namespace onestep
