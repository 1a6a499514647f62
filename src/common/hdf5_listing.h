// What is in an HDF5 file, whoever wrote it: names, types and shapes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace onestep {

struct Hdf5Dataset {
  std::string name;  // "data/0"
  std::string type;  // "float32", "uint8", "text", ...
  std::vector<std::uint64_t> shape;
};

struct Hdf5Listing {
  std::string format;                 // the root attribute of that name, where it is a text; ""
  std::vector<Hdf5Dataset> datasets;  // by name, the first `max_datasets`
  std::int64_t num_datasets = 0;      // of the whole file, counted up to 10,000,000
};

// Follows no link out of the file and reads no data. Errors: kNotFound; kCorrupt naming the file.
Hdf5Listing list_hdf5(const std::string& path, std::size_t max_datasets);

}  // namespace onestep
