#include "worker/run/sample_noise.h"

#include <algorithm>

#include "common/error.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

// As diffusers' pipeline has them when nothing is said.
constexpr std::int64_t kTextSteps = 50;
constexpr double kTextGuidance = 7.5;

}  // namespace

SampleDraw sample_draw(const Denoiser& denoiser, std::uint64_t seed, std::int64_t count, std::int64_t label) {
  const ImageShape shape = denoiser.image_shape();
  const std::int64_t classes = denoiser.num_classes();
  if (label >= classes) {
    throw Error(ErrorCode::kConfig, "label: expected a class below " + std::to_string(classes) + ", found " +
                                        std::to_string(label));
  }
  SampleDraw draw;
  draw.noise = keyed_normal({seed, RandomStream::kSampleNoise, 0}, 0, count, {shape.channels, shape.height, shape.width});
  if (classes == 0) {
    draw.labels = torch::zeros({count}, torch::kInt64);
  } else {
    draw.labels = label >= 0 ? torch::full({count}, label, torch::kInt64) : torch::arange(count).remainder(classes);
    draw.condition.labels = draw.labels;
  }
  return draw;
}

SamplerSpec sampler_of(const LoadedModel& model) {
  SamplerSpec sampler;
  if (!model.student_timesteps.empty()) {
    sampler.kind = "few_step";
    sampler.timesteps = model.student_timesteps;
  } else if (model.sd && model.generator_sigma > 0) {
    sampler.kind = "one_step";
    sampler.timestep = static_cast<std::int64_t>(model.generator_sigma);
  } else if (model.sd) {
    sampler.kind = "pndm";
    sampler.steps = kTextSteps;
    sampler.guidance_scale = kTextGuidance;
  } else if (model.generator_sigma > 0) {
    sampler.kind = "one_step";
    sampler.sigma_max = model.generator_sigma;
  } else if (const auto* schedule = dynamic_cast<const EdmSchedule*>(&model.denoiser->schedule())) {
    sampler.sigma_min = std::max(sampler.sigma_min, schedule->levels().min);
    sampler.sigma_max = std::min(sampler.sigma_max, schedule->levels().max);
  }
  return sampler;
}

void check_sampler_of(const LoadedModel& model, const SamplerSpec& sampler) {
  const bool few = sampler.kind == "few_step", one = sampler.kind == "one_step";
  if (!(model.generator_sigma > 0) || (!few && !one)) return;
  const std::vector<double> own = model.student_timesteps.empty() ? std::vector<double>{model.generator_sigma} : model.student_timesteps;
  const double one_t = model.sd ? static_cast<double>(sampler.timestep) : sampler.sigma_max;
  const std::vector<double> found = few ? sampler.timesteps : std::vector<double>{one_t};
  if (found == own) return;
  throw Error(ErrorCode::kMismatch, "sampler: timesteps: expected " + nlohmann::json(own).dump() + ", the steps of " + model.path +
                                        ", found " + nlohmann::json(found).dump());
}

}  // namespace onestep
