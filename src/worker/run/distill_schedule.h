// The stages of a distillation's DMD phase: lambda_reg, largest t and decoder by iteration (DMD Table 5).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "common/job_spec.h"
#include "worker/diffusion/denoiser.h"
#include "worker/dmd/dmd_step.h"
#include "worker/run/lpips_distance.h"

namespace onestep {

// The stage that an iteration of the DMD phase is in; nullopt before the first one, and in earlier phases (a negative iteration).
[[nodiscard]] std::optional<std::size_t> stage_index(const std::vector<DistillSpec::Stage>& schedule, std::int64_t iteration);

// As parametrisation_of() has the score's range, with the stage's t_hi.
[[nodiscard]] NoiseRange stage_score_range(const DistillSpec& spec, std::size_t stage, const Denoiser& denoiser);

// The distances of all stages; a decoder that several name is loaded once. Errors: those of load_distance().
class DistillDistances {
 public:
  DistillDistances(const DistillSpec& spec, bool recompute, const torch::Device& device = torch::kCPU);
  // Of a stage; of nullopt, the spec's own.
  [[nodiscard]] const Distance& at(std::optional<std::size_t> stage) const;
  // Puts the digests of weights and decoders in the places of their paths.
  void name_by_content(nlohmann::json& config) const;

 private:
  std::map<std::string, LoadedDistance> by_decoder_;
  std::vector<std::string> decoders_;  // of the spec, then of each stage
};

}  // namespace onestep
