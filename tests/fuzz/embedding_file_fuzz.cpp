// Embeddings files (HDF5): what is accepted has the digest it states.
#include "common/embedding_file.h"
#include "fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace onestep;
  const std::string path = file_of_input(data, size, ".h5");
  try {
    EmbeddingFile(path).verify();
  } catch (const Error&) {
  }
  return 0;
}
