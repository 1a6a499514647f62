// Where a model comes from, for the card (README.md) of an export.
#pragma once

#include <cstdint>
#include <string>

#include "common/job_spec.h"
#include "worker/run/model_folder.h"

namespace onestep {

// Empty texts and a count of 0: not known.
struct ModelOrigin {
  std::string teacher;     // digest
  std::string data;        // digests of what it was trained on
  std::string metric;      // figure and protocol
  std::int64_t steps = 0;  // training iterations
};

// From the model's folder, the newest checkpoint of its run, and the evaluation that the spec names, if it names one. The same checkpoint,
// the same origin. Errors: kNotFound, kCorrupt; kMismatch for an evaluation of another model.
ModelOrigin origin_of(const LoadedModel& model, const ExportSpec& spec);

// The card of a network of sigma. digest: of its model.safetensors.
std::string model_card(const LoadedModel& model, const ModelOrigin& origin, const std::string& dtype, const std::string& digest);

}  // namespace onestep
