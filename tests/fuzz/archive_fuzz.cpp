// Zip archives of pictures and arrays, and the headers of the arrays in them.
#include "cli/npy_header.h"
#include "common/zip_archive.h"
#include "fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace onestep;
  try {
    const ZipArchive archive(file_of_input(data, size, ".zip"));
    for (const ZipEntry& entry : archive.entries()) {
      try {
        static_cast<void>(read_npy_header(archive.read(entry.name, 1 << 20), entry.name));
      } catch (const Error&) {
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
