// The picture of an evaluation, alone and beside those of others.
#pragma once

#include <string>
#include <vector>

#include "common/job_spec.h"
#include "worker/metrics/picture.h"

namespace onestep {

// Writes panel.png, panel.txt (the caption) and comparison.png, which has the panels of the run folders `compare` on its left.
// Errors: kNotFound, kCorrupt, kIo.
void write_evaluation_panel(const std::string& run, const Picture& grid, const std::string& caption,
                            const std::vector<std::string>& compare);

// "1 step", "18 steps": how a sampler is captioned.
std::string steps_text(const SamplerSpec& sampler);

}  // namespace onestep
