// Image files (HDF5): what is accepted has the digest it states.
#include "common/hdf5_listing.h"
#include "common/image_file.h"
#include "fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace onestep;
  const std::string path = file_of_input(data, size, ".h5");
  try {
    static_cast<void>(ImageFile(path).verify());
  } catch (const Error&) {
  }
  try {
    static_cast<void>(list_hdf5(path, 10));
  } catch (const Error&) {
  }
  return 0;
}
