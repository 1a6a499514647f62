// Spoiled files of every format, how each is opened, and what its refusal must say.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "integration/whole_files.h"

namespace onestep {

// How the spoiled file is opened; what is thrown is the refusal.
enum class Open { kTensors, kVerify, kPack, kLabels, kPicture, kNpy, kNpz, kZip, kInspect, kJobSpec };

struct Spoiled {
  const char* format;  // as docs/formats.md and the page of files in call it
  const char* name;  // of the file
  Open how;
  std::function<void(const WholeFiles&)> spoil;
  std::vector<std::string> parts;  // of the message, beside the file's name
};

// All of them, format by format.
std::vector<Spoiled> spoiled_files();

}  // namespace onestep
