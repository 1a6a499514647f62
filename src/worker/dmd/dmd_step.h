// One iteration of Distribution Matching Distillation: Algorithm 1 of arXiv 2311.18828, with the options of DMD2 (arXiv 2405.14867).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/job_spec.h"
#include "worker/diffusion/denoiser.h"
#include "worker/diffusion/discriminator.h"
#include "worker/dmd/distance.h"
#include "worker/dmd/updater.h"
#include "worker/tensors/figure.h"
#include "worker/tensors/torch.h"

namespace onestep {

// G_theta, mu_real (frozen), mu_fake. One device; borrowed.
struct DmdNetworks {
  Denoiser& generator;
  Denoiser& real_score;
  Denoiser& fake_score;
  Discriminator* discriminator = nullptr;  // on the fake score's bottleneck, its parameters among the fake score's; null: no GAN
};

// One micro-batch: which fresh samples it draws, and its noise-image pairs.
struct MicroBatch {
  std::int64_t first_sample = 0;  // index of its first fresh sample within the global batch
  std::int64_t num_samples = 0;
  torch::Tensor pair_noise;       // z_ref [P,C,H,W]; undefined when there are no pairs
  torch::Tensor pair_image;       // y_ref [P,C,H,W]
  torch::Tensor pair_label;       // [P] int64
  // Embeddings for networks conditioned on text, undefined for others: of the fresh samples [num_samples,T,D], of the pairs [P,T,D], of the
  // real images [num_samples,T,D].
  torch::Tensor text, pair_text, real_text;
  std::int64_t first_pair = 0;    // index of its first pair within the iteration's
  torch::Tensor real_image;       // for the discriminator: [num_samples,C,H,W]; undefined when there is none
  torch::Tensor real_label;       // [num_samples] int64; undefined for networks without classes
};

// Noise levels sigma_t / alpha_t between which t is drawn.
struct NoiseRange {
  double lo = 0.5, hi = 5.0;
};

struct DmdSettings {
  std::uint64_t seed = 0;
  std::vector<double> t_G = {80.0};  // the generator's t, sigma or a step, one a network call, descending: one call is DMD's own
  std::int64_t global_batch = 0;     // fresh samples of the whole iteration
  std::int64_t global_pairs = 0;
  double lambda_dm = 1.0;
  double lambda_reg = 0.25;
  NoiseRange score, fake;            // of the distribution matching gradient; of the fake score's loss
  // The generator's turn is every n-th iteration, from `first_step` on (DMD2 Sec. 4.2).
  std::int64_t fake_updates_per_generator_update = 1;
  std::int64_t first_step = 0;
  bool regression_joins_dm = false;  // the pairs' generated images take part in distribution matching and in the fake score's batch
  double lambda_gan = 3e-3;          // of the generator's GAN loss
  double lambda_discriminator = 1e-2;
  NoiseRange gan{0.002, 80.0};       // of the images that the discriminator sees
  // On a device: the step [1] int64, which dmd_step() and fake_score_step() then read there, and (lambda_dm, lambda_reg) [2] fp32 in place of the
  // two numbers above; a captured graph takes what they hold at each replay. Undefined on the CPU.
  torch::Tensor device_step = {}, device_lambda = {};
};

// Sums over one micro-batch, fp64; adding them over micro-batches gives the iteration's figures.
struct DmdSums {
  Figure loss_dm, loss_reg, loss_fake;   // already divided by the global batch
  Figure gradient_abs;                   // of mean |distribution matching gradient|, likewise
  Figure sample_sum, sample_square_sum;  // over the samples' pixels, likewise
  Figure zero_denominators;              // samples skipped, counted
  Figure loss_gan, loss_discriminator;   // unweighted, divided by the global batch
  Figure discriminator_accuracy;         // share of fake and real images told rightly, likewise
};

struct DmdReport {
  std::vector<DmdSums> micro_batches;
  UpdateReport generator, fake;  // the generator's: of its turns
};

// Whether the generator is trained in this iteration; in the others, only the fake score is.
[[nodiscard]] bool is_generators_turn(const DmdSettings& settings, std::uint32_t step);

// Draws are keyed by (seed, step, sample index): law 1. Both scores are those from before the update; the fake score's update
// reuses the kept samples with fresh t and noise. Figures of the generator are zero but in its turn.
DmdReport dmd_step(const DmdNetworks& networks, const DmdSettings& settings, std::uint32_t step,
                   std::span<const MicroBatch> micro_batches, const Distance& distance, Updater& update_generator,
                   Updater& update_fake);

// The regression term alone, weight 1 (warm-up, and the baseline without distribution matching).
DmdReport regression_step(Denoiser& generator, const DmdSettings& settings,
                          std::span<const MicroBatch> micro_batches, const Distance& distance,
                          Updater& update_generator);

// The fake score, and the discriminator with it, alone on samples of a generator that stands still.
DmdReport fake_score_step(const DmdNetworks& networks, const DmdSettings& settings, std::uint32_t step,
                          std::span<const MicroBatch> micro_batches, Updater& update_fake);

}  // namespace onestep
