#include "cli/image_source.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <filesystem>
#include <utility>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/zip_archive.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLabelsName = "dataset.json";
constexpr std::uint64_t kMaxFileBytes = std::uint64_t{1} << 30;

bool is_picture(const std::string& name) {
  std::string end = fs::path(name).extension().string();
  std::transform(end.begin(), end.end(), end.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return end == ".png" || end == ".jpg" || end == ".jpeg";
}

bool by_name(const SourceImage& a, const SourceImage& b) { return a.name < b.name; }

class FolderSource final : public ImageSource {
 public:
  explicit FolderSource(std::string folder) : folder_(std::move(folder)) {
    try {
      list();
    } catch (const fs::filesystem_error& error) {
      throw Error(ErrorCode::kIo, error.what());
    }
    std::sort(images_.begin(), images_.end(), by_name);
  }

  [[nodiscard]] Reader reader() const override {
    return [folder = folder_](const SourceImage& image) {
      const std::string text = read_file(folder + "/" + image.name);
      const auto* data = reinterpret_cast<const std::byte*>(text.data());
      return std::vector<std::byte>(data, data + text.size());
    };
  }

 private:
  void list() {
    for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
      if (!entry.is_regular_file()) continue;
      const std::string name = fs::path(entry.path()).lexically_relative(folder_).generic_string();
      if (is_picture(name)) {
        const auto changed = entry.last_write_time().time_since_epoch().count();
        images_.push_back({name, entry.file_size(), static_cast<std::uint64_t>(changed)});
      } else if (name == kLabelsName) {
        labels_text_ = read_file(entry.path().string());
      } else {
        ++num_others_;
      }
    }
  }

  std::string folder_;
};

class ZipSource final : public ImageSource {
 public:
  explicit ZipSource(std::string path) : path_(std::move(path)) {
    const ZipArchive archive(path_);
    for (const ZipEntry& entry : archive.entries()) {
      if (is_picture(entry.name)) {
        images_.push_back({entry.name, entry.bytes, entry.crc});
      } else if (entry.name == kLabelsName) {
        const auto bytes = archive.read(entry.name, kMaxFileBytes);
        labels_text_ = std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      } else {
        ++num_others_;
      }
    }
    std::sort(images_.begin(), images_.end(), by_name);
  }

  [[nodiscard]] Reader reader() const override {
    auto archive = std::make_shared<ZipArchive>(path_);
    return [archive](const SourceImage& image) { return archive->read(image.name, kMaxFileBytes); };
  }

 private:
  std::string path_;
};

}  // namespace

std::unique_ptr<ImageSource> open_image_source(const std::string& path) {
  if (!file_exists(path))
    throw Error(ErrorCode::kNotFound, path + ": expected a folder or a zip archive, found none");
  if (fs::is_directory(path)) return std::make_unique<FolderSource>(path);
  return std::make_unique<ZipSource>(path);
}

}  // namespace onestep
