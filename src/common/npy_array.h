// One array of numpy's .npy format as bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace onestep {

// An array in C order, whatever order and precision the file had.
struct NpyArray {
  std::vector<std::int64_t> shape;  // {} for a scalar
  std::vector<double> values;
};

// .npy versions 1 to 3, '<f4' and '<f8', C and Fortran order; object arrays and everything else are refused. `where` begins the
// message. Errors: kCorrupt: truncated, another type, data that are not as long as the shape says.
NpyArray decode_npy(const std::string& bytes, const std::string& where);
// Version 1.0, '<f8', as numpy.save writes it. Errors: kUsage for values that don't fit the shape.
std::string encode_npy(const NpyArray& array, const std::string& where);

}  // namespace onestep
