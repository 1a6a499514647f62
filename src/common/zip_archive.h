// Reads zip archives: names, sizes, contents.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace onestep {

struct ZipEntry {
  std::string name;         // as stored, '/' between folders
  std::uint64_t bytes = 0;  // unpacked
  std::uint32_t crc = 0;
};

// One open archive; entries are those of the central directory. Move-only; one thread at a time:
// open one for each thread.
class ZipArchive {
 public:
  // Errors: kNotFound; kCorrupt naming the file, also for an entry without a size or with a name
  // that is there twice.
  explicit ZipArchive(const std::string& path);
  ZipArchive(ZipArchive&&) noexcept;
  ZipArchive& operator=(ZipArchive&&) noexcept;
  ~ZipArchive();
  // In the order of the directory; folders left out.
  [[nodiscard]] const std::vector<ZipEntry>& entries() const { return entries_; }
  [[nodiscard]] const ZipEntry* find(const std::string& name) const;
  // The whole content, checked by its CRC. Errors: kCorrupt; kCorrupt too when it is larger than
  // `max_bytes`.
  [[nodiscard]] std::vector<std::byte> read(const std::string& name, std::uint64_t max_bytes) const;

 private:
  struct State;
  std::string path_;
  std::unique_ptr<State> state_;
  std::vector<ZipEntry> entries_;
};

}  // namespace onestep
