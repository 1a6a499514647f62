#include "coordinator/file_slice.h"

#include <fstream>

namespace onestep {

std::string read_file_slice(const std::string& path, std::int64_t offset, std::int64_t limit) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes(static_cast<std::size_t>(limit), '\0');
  if (!file.seekg(offset)) return "";
  file.read(bytes.data(), limit);
  bytes.resize(static_cast<std::size_t>(file.gcount()));
  return bytes;
}

}  // namespace onestep
