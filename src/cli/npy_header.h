// The header of a NumPy array file: what the array is, without its data. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace onestep {

struct NpyHeader {
  std::string dtype;  // "<f8", as NumPy writes it
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};

// `file`: the whole file. Checks magic, version, header and that the data are as long as dtype and
// shape say. Errors: kCorrupt naming `where`, expected and found; also for arrays of objects, which
// are pickles.
NpyHeader read_npy_header(std::span<const std::byte> file, const std::string& where);

}  // namespace onestep
