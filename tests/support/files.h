// Plain file access for tests, independent of the code under test; bit flips; errors as values.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/durable_file.h"
#include "common/error.h"

namespace onestep {

inline std::string slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void spit(const std::string& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << content;
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path);
}

inline std::string with_flipped_bit(std::string content, std::size_t bit) {
  content.at(bit / 8) = static_cast<char>(content.at(bit / 8) ^ (1 << (bit % 8)));
  return content;
}

// Names of everything in a folder, sorted.
inline std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

struct CaughtError {
  ErrorCode code;
  std::string message;
};

// What `function` throws; nullopt when it throws nothing. Any exception but Error escapes and fails
// the test.
template <typename Function>
std::optional<CaughtError> error_of(Function function) {
  try {
    function();
  } catch (const Error& error) {
    return CaughtError{error.code(), error.what()};
  }
  return std::nullopt;
}

// While it lives, the system call number `nth` (from 1) of durable_file fails with `error_number`;
// others are counted.
class FailNthCall {
 public:
  FailNthCall(int nth, int error_number) {
    set_fault_hook_for_tests([this, nth, error_number](const char*, const std::string&) {
      return ++calls_ == nth ? error_number : 0;
    });
  }
  FailNthCall(const FailNthCall&) = delete;
  FailNthCall& operator=(const FailNthCall&) = delete;
  ~FailNthCall() { set_fault_hook_for_tests(nullptr); }
  [[nodiscard]] int calls() const { return calls_; }

 private:
  int calls_ = 0;
};

}  // namespace onestep
