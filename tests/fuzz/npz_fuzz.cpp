// NumPy archives of reference statistics.
#include "common/npz_file.h"
#include "fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace onestep;
  try {
    const NpzFile file(file_of_input(data, size, ".npz"));
    for (const std::string& key : file.keys()) {
      try {
        static_cast<void>(file.array(key));
      } catch (const Error&) {
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
