#include "worker/run/detector_folder.h"

#include <nlohmann/json.hpp>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/safetensors_file.h"
#include "worker/run/model_folder.h"
#include "worker/tensors/flat_parameters.h"

namespace onestep {

std::string save_detector(const std::string& folder, const DigitDetector& detector) {
  create_folders_durably(folder);
  const std::string digest = write_safetensors(folder + "/model.safetensors", named_tensors(*detector), {});
  const nlohmann::json config = {{"format", "onestep-detector"},
                                 {"format_version", 1},
                                 {"channels", detector->channels()},
                                 {"side", detector->side()},
                                 {"num_classes", detector->num_classes()},
                                 {"model_sha256", digest}};
  write_file_durably(folder + "/config.json", config.dump(2) + "\n");
  return digest;
}

LoadedDetector load_detector(const std::string& folder) {
  const std::string where = folder + "/config.json";
  const nlohmann::json config = read_model_config(folder);
  if (config.at("format") != "onestep-detector") {
    throw Error(ErrorCode::kMismatch, where + ": expected a detector, found format " + config.at("format").dump());
  }
  LoadedDetector detector;
  std::string expected;
  try {
    detector.module = DigitDetector(config.at("channels").get<std::int64_t>(), config.at("side").get<std::int64_t>(),
                                    config.at("num_classes").get<std::int64_t>());
    expected = config.at("model_sha256").get<std::string>();
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorCode::kCorrupt, where + ": " + error.what());
  }
  const std::string file = folder + "/model.safetensors";
  detector.sha256 = sha256_file(file);
  if (detector.sha256 != expected) {
    throw Error(ErrorCode::kCorrupt,
                file + ": expected SHA-256 " + expected + " (config.json), found " + detector.sha256);
  }
  load_parameters(*detector.module, SafetensorsFile(file));
  return detector;
}

}  // namespace onestep
