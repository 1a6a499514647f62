// A piece of a file, as far as it is there.
#pragma once

#include <cstdint>
#include <string>

namespace onestep {

// Up to `limit` bytes from `offset`; "" when the file is shorter or not there (yet).
std::string read_file_slice(const std::string& path, std::int64_t offset, std::int64_t limit);

}  // namespace onestep
