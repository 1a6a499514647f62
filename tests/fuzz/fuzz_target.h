// One target a program: reads hostile bytes and may throw onestep::Error, nothing else. libFuzzer's
// entry point, so that the same file serves the deterministic test (mutations_test.cpp) and, with
// ONESTEP_FUZZ, clang's libFuzzer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include <unistd.h>

#include "support/files.h"
#include "support/temp_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace onestep {

inline std::string text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// For readers of files: the input as a file in memory, at one path a process.
inline std::string file_of_input(const std::uint8_t* data, std::size_t size,
                                 const std::string& ending) {
  static const TempFolder folder(in_memory_parent());
  const std::string path = folder / ("input" + ending);
  spit(path, text_of(data, size));
  return path;
}

}  // namespace onestep
