// Says what a file or folder of Onestep is and whether it is whole.
#pragma once

#include <string>
#include <vector>

namespace onestep {

struct VerifiedPart {
  std::string path;
  std::string type;    // "checkpoint", "pair set", "model", "safetensors file", ...
  std::string digest;  // what names it; "" where nothing does
  std::string detail;  // "iteration 300, 105,600 images"
};

// Every byte that has a digest is read and compared. A run folder gives one part for each thing in it.
// Errors: kNotFound; kCorrupt or kMismatch naming file, what, expected and found.
std::vector<VerifiedPart> verify_path(const std::string& path);

// verify_path() on the screen; returns the exit status 0, throws what it throws.
int print_verification(const std::string& path, bool json);

}  // namespace onestep
