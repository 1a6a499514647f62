// Zip archives for tests, written without the library under test: entries stored, not packed.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace onestep {

inline std::uint32_t crc32_of(const std::string& data) {
  std::uint32_t crc = ~0u;
  for (const unsigned char byte : data) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
  }
  return ~crc;
}

inline std::string stored_zip(const std::vector<std::pair<std::string, std::string>>& entries) {
  const auto number = [](std::uint64_t value, int bytes) {
    std::string text;
    for (int i = 0; i < bytes; ++i) text += static_cast<char>((value >> (8 * i)) & 0xFF);
    return text;
  };
  std::string file, directory;
  for (const auto& [name, content] : entries) {
    const std::string common = number(20, 2) + number(0, 2) + number(0, 2) + number(0, 4) +
                               number(crc32_of(content), 4) + number(content.size(), 4) +
                               number(content.size(), 4) + number(name.size(), 2) + number(0, 2);
    directory += "PK\x01\x02" + number(20, 2) + common + number(0, 2) + number(0, 2) +
                 number(0, 2) + number(0, 4) + number(file.size(), 4) + name;
    file += "PK\x03\x04" + common + name + content;
  }
  const std::string count = number(entries.size(), 2);
  return file + directory + "PK\x05\x06" + number(0, 4) + count + count +
         number(directory.size(), 4) + number(file.size(), 4) + number(0, 2);
}

// A NumPy array of doubles, version 1.0.
inline std::string npy_of(const std::string& shape, const std::string& data,
                          const std::string& descr = "<f8") {
  std::string header =
      "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }";
  header.append((64 - (10 + header.size() + 1) % 64) % 64, ' ');
  header += '\n';
  return std::string("\x93NUMPY\x01", 7) + std::string(1, '\0') +
         static_cast<char>(header.size() & 0xFF) + static_cast<char>(header.size() >> 8) + header +
         data;
}

}  // namespace onestep
