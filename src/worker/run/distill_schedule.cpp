#include "worker/run/distill_schedule.h"

#include "worker/run/parametrisation.h"

namespace onestep {

std::optional<std::size_t> stage_index(const std::vector<DistillSpec::Stage>& schedule, std::int64_t iteration) {
  std::optional<std::size_t> index;
  for (std::size_t i = 0; i < schedule.size() && schedule[i].from_iteration <= iteration; ++i) index = i;
  return index;
}

NoiseRange stage_score_range(const DistillSpec& spec, std::size_t stage, const Denoiser& denoiser) {
  DistillSpec staged = spec;
  staged.dmd.t_hi = spec.dmd.schedule[stage].t_hi;
  return parametrisation_of(staged, denoiser).score;
}

DistillDistances::DistillDistances(const DistillSpec& spec, bool recompute, const torch::Device& device) {
  decoders_.push_back(spec.decoder);
  for (const DistillSpec::Stage& stage : spec.dmd.schedule) decoders_.push_back(stage.decoder.empty() ? spec.decoder : stage.decoder);
  for (const std::string& decoder : decoders_) {
    if (by_decoder_.contains(decoder)) continue;
    DistillSpec decoded = spec;
    decoded.decoder = decoder;
    by_decoder_[decoder] = load_distance(decoded, recompute, device);
  }
}

const Distance& DistillDistances::at(std::optional<std::size_t> stage) const {
  return *by_decoder_.at(decoders_[stage ? *stage + 1 : 0]).distance;
}

void DistillDistances::name_by_content(nlohmann::json& config) const {
  const LoadedDistance& own = by_decoder_.at(decoders_.front());
  if (!own.sha256.empty()) config["lpips"]["weights"] = own.sha256;
  if (!own.decoder_sha256.empty()) config["decoder"] = own.decoder_sha256;
  for (std::size_t i = 0; i + 1 < decoders_.size(); ++i) {
    nlohmann::json& stage = config["dmd"]["schedule"][i];
    if (stage.contains("decoder")) stage["decoder"] = by_decoder_.at(decoders_[i + 1]).decoder_sha256;
  }
}

}  // namespace onestep
