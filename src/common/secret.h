// Secrets: made from the system's random numbers, compared in constant time.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace onestep {

// 2 * num_bytes lower-case hex digits of the kernel's random numbers. Errors: kIo.
std::string random_hex(std::size_t num_bytes);

// The time it takes depends on the lengths alone.
bool equal_in_constant_time(std::string_view a, std::string_view b);

// A file that holds one secret: its first line, without the newline. Errors: kNotFound, kIo; kConflict when others than
// its owner may read it; kUsage when it is empty.
std::string read_secret_file(const std::string& path);

// A new file of mode 0600 with `content`, synced, complete or not there; one that is there is replaced. Errors: kIo.
void write_secret_file(const std::string& path, std::string_view content);

}  // namespace onestep
