// The networks of the cases, with keyed weights that make every activation of order 1.
#pragma once

#include <memory>
#include <string>

#include "common/job_spec.h"
#include "worker/models/preconditioners.h"

namespace onestep {

// "cifar10": EDM's conditional DDPM++; "imagenet64": its ADM. small: the same classes with a few thousand parameters.
NetworkSpec bench_spec(const std::string& dataset, bool small);
// scale: of every parameter; what makes the fake score another network than the real one.
std::unique_ptr<Denoiser> bench_network(const NetworkSpec& spec, float scale = 1);
// Weights that both sides share; the twin reads them from the file.
void fill_keyed(torch::nn::Module& module);

}  // namespace onestep
