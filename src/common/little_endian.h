// Numbers as bytes, least significant first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace onestep {

// `size` <= 8 bytes at `data`.
inline std::uint64_t little_endian(const std::byte* data, std::size_t size) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < size; ++i) value |= std::to_integer<std::uint64_t>(data[i]) << (8 * i);
  return value;
}

// Appends the lowest `bytes` <= 8 bytes of a value.
inline void put_little_endian(std::string& text, std::uint64_t value, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) text += static_cast<char>((value >> (8 * i)) & 0xFF);
}

}  // namespace onestep
