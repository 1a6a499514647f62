// dataset.json, and the weight map of a safetensors index: both come from strangers.
#include "cli/dataset_labels.h"
#include "common/safetensors_index.h"
#include "fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace onestep;
  try {
    parse_dataset_labels(text_of(data, size), "dataset.json", {"a.png", "b.png"}, 0);
  } catch (const Error&) {
  }
  try {
    TensorFiles{file_of_input(data, size, ".safetensors.index.json")};
  } catch (const Error&) {
  }
  return 0;
}
