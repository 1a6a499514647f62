// The regression distance a spec names: L2, or LPIPS on weights from a file.
#pragma once

#include <memory>
#include <string>

#include "common/job_spec.h"
#include "worker/dmd/distance.h"

namespace onestep {

struct LoadedDistance {
  std::unique_ptr<Distance> distance;
  std::string sha256;  // of the weight files' digests in order; "" for L2
  std::string decoder_sha256;  // of the decoder's configuration and weights; "" without one
};

// distance "l2" or "lpips". LPIPS wants images of 3 channels in [-1,1]; with spec.decoder, the folder of an AutoencoderKL or AutoencoderTiny,
// both sides are latents and their decoded images are compared.
// `recompute`: activation checkpointing of an AutoencoderKL; an AutoencoderTiny keeps what it has.
// Errors: kConfig; kNotFound, kCorrupt, kMismatch naming the file.
// device: where LPIPS computes, in bfloat16 unless it is the CPU; a decoder is for the CPU alone.
LoadedDistance load_distance(const DistillSpec& spec, bool recompute, const torch::Device& device = torch::kCPU);

}  // namespace onestep
