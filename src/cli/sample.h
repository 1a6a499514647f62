// Draws images from an exported model by running the worker beside this program; no coordinator.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace onestep {

struct SampleOptions {
  std::string model;          // export or run folder
  std::int64_t count = 16;
  std::uint64_t seed = 0;
  std::int64_t label = -1;    // -1: each class in turn
  std::vector<std::string> prompts;  // of a text-to-image model: each in turn
  std::string like;           // pipeline folder beside a model of a single file
  std::string out;            // PNG file
  bool json = false;
};

// The job spec that the worker gets; paths absolute. Errors: ConfigError.
std::string sample_spec_text(const SampleOptions& options, const std::string& run_folder);
// Returns the worker's exit status; it has said on standard error what was wrong.
int draw_samples(const SampleOptions& options);

}  // namespace onestep
