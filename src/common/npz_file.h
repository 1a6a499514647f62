// Reads and writes numpy's .npz: a zip archive of .npy arrays of floats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/durable_file.h"
#include "common/npy_array.h"

namespace onestep {

// A mapped archive; arrays are decoded when asked for. Move-only.
class NpzFile {
 public:
  // Checks the archive: one directory at its end, members within it, stored or deflated, names once. Zip64 sizes of members are
  // read; archives beyond 4 GB are not. Errors: kNotFound; kCorrupt naming file, member, expected, found.
  explicit NpzFile(const std::string& path);
  [[nodiscard]] const std::string& path() const { return path_; }
  // Names without ".npy", sorted.
  [[nodiscard]] std::vector<std::string> keys() const;
  [[nodiscard]] bool contains(const std::string& key) const { return members_.contains(key); }
  // As decode_npy() reads it. Errors: kCorrupt (no such key, wrong check sum, truncated, another type) naming file, key, expected,
  // found.
  [[nodiscard]] NpyArray array(const std::string& key) const;

 private:
  struct Member {
    std::string name;  // in the archive
    std::uint16_t method = 0;
    std::uint32_t crc = 0;
    std::uint64_t compressed = 0, size = 0, header_offset = 0;
  };
  [[nodiscard]] std::string content(const std::string& key, const Member& member) const;
  [[noreturn]] void fail(const std::string& what) const;

  std::string path_;
  MappedFile file_;
  std::uint64_t directory_offset_ = 0;
  std::map<std::string, Member> members_;
};

// Writes `arrays` as '<f8' under their names, stored as numpy.savez stores them, durably and without times: equal input, equal
// bytes. Returns the SHA-256 of the file. Errors: kIo; kUsage for values that don't fit a shape or 4 GB and more.
std::string write_npz(const std::string& path, const std::vector<std::pair<std::string, NpyArray>>& arrays);

}  // namespace onestep
