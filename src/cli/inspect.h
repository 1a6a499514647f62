// `onestep inspect`: says what a file or folder is, whoever wrote it, and the first things wrong
// with it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace onestep {

struct TensorCount {
  std::int64_t tensors = 0;
  std::uint64_t elements = 0, bytes = 0;
};

struct Inspection {
  std::string path;
  std::string format;           // "safetensors", "checkpoint", "PNG", "a pickle", ...
  std::string network;          // "Stable Diffusion 1.x UNet, context 768"; "": none recognised
  std::int64_t parameters = 0;  // of that network
  std::map<std::string, TensorCount> tensors;              // by dtype
  std::string digest;                                      // what names it: SHA-256
  std::vector<std::pair<std::string, std::string>> facts;  // name, value: in the order shown
  std::vector<std::string> problems;                       // the first kMaxProblems
  std::vector<Inspection> parts;                           // of a folder
};

constexpr std::size_t kMaxProblems = 10;

// Never throws for what is in the file: that is a problem of the result. Opens no pickle. Errors:
// kNotFound, kIo.
Inspection inspect_path(const std::string& path);

// On the screen or as JSON; returns the exit status: 0, or 4 when something is wrong with it.
int print_inspection(const std::string& path, bool json);

}  // namespace onestep
