// What a job spec must fulfil beyond the range of each single field. Every finding is recorded in
// the reader.
#pragma once

#include <string>

#include "common/config.h"
#include "common/job_spec.h"

namespace onestep {

// `name` as is_job_name() wants it; an empty one was reported as missing.
void check_name(ConfigReader& reader, const std::string& name);
// micro_batches is a power of two, and the ranks can share them (law 2).
void check_ranks(ConfigReader& reader, const JobSpec& spec);
// The network can be built; `reader` is over the network's object.
void check_network(ConfigReader& reader, const NetworkSpec& network);
void check_sampler(ConfigReader& reader, const SamplerSpec& sampler);
// The checks of the spec's kind; none while micro_batches itself is wrong.
void check_options(ConfigReader& reader, const JobSpec& spec);

}  // namespace onestep
