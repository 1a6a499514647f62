// SHA-256 for everything that is named by its digest; XXH3-128 for blocks of rows.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace onestep {

// Incremental SHA-256. Move-only.
class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();
  void update(const void* data, std::size_t size);
  // 64 lower-case hex digits; the object is spent afterwards.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256(std::string_view data);
std::string sha256(const void* data, std::size_t size);
// Errors: kNotFound, kIo.
std::string sha256_file(const std::string& path);

// Two 64-bit words of XXH3-128 (low, high).
std::array<std::uint64_t, 2> xxh3_128(const void* data, std::size_t size);

}  // namespace onestep
