// How each kind of file is inspected; used by inspect.cpp alone.
#pragma once

#include <string>
#include <vector>

#include "cli/inspect.h"
#include "common/error.h"

namespace onestep {

// Adds a problem; the last of too many says how many more there are.
void add_problems(Inspection& inspection, const std::vector<std::string>& problems);

// Runs `part`; what it throws about a file becomes a problem.
template <typename Part>
void collect_problems(Inspection& inspection, Part part) {
  try {
    part();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kIo) throw;
    add_problems(inspection, {error.what()});
  }
}

// A safetensors file, or the index of sharded ones.
void inspect_tensors(Inspection& inspection);
// Formats of other people: PNG, JPEG, HDF5, npy, zip archives of any kind, pickles. False: none of
// them.
bool inspect_foreign(Inspection& inspection, const std::string& first_bytes);

}  // namespace onestep
