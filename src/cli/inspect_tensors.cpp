#include <nlohmann/json.hpp>

#include "cli/inspect_parts.h"
#include "cli/recognize_network.h"
#include "cli/text.h"
#include "common/hash.h"
#include "common/safetensors_index.h"

namespace onestep {

void inspect_tensors(Inspection& inspection) {
  inspection.format = inspection.path.ends_with(".json") ? "safetensors index" : "safetensors";
  collect_problems(inspection, [&] {
    const TensorFiles files(inspection.path);
    for (const TensorView& tensor : files.tensors()) {
      TensorCount& count = inspection.tensors[to_string(tensor.dtype)];
      ++count.tensors;
      count.elements += num_elements(tensor);
      count.bytes += tensor.bytes.size();
    }
    const RecognizedNetwork network = recognize_network(files.tensors());
    inspection.network = network.name;
    inspection.parameters = network.num_parameters;
    add_problems(inspection, network.problems);
    if (files.is_sharded())
      inspection.facts.emplace_back("shards", std::to_string(files.files().size()));
    for (const auto& [key, value] : files.files().front().metadata()) {
      inspection.facts.emplace_back("metadata " + key,
                                    value.size() > 200 ? value.substr(0, 200) + "..." : value);
    }
  });
  inspection.digest = sha256_file(inspection.path);
}

}  // namespace onestep
