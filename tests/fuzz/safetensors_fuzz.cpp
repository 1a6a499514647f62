// The safetensors header: what is accepted is consistent, and can be written again.
#include <cstdlib>

#include "common/safetensors_file.h"
#include "fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace onestep;
  try {
    const SafetensorsFile file(file_of_input(data, size, ".safetensors"));
    std::size_t total = 0;
    for (const TensorView& tensor : file.tensors()) total += tensor.bytes.size();
    if (total > size) std::abort();
    static_cast<void>(safetensors_header(file.tensors(), file.metadata()));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCorrupt) std::abort();
  }
  return 0;
}
