// What a training job will take of memory, told before it is run.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

#include "common/job_spec.h"
#include "common/pipeline.h"
#include "worker/run/run_context.h"
#include "worker/tensors/flat_parameters.h"

namespace onestep {

// Bytes of one rank while it trains. What follows from lengths alone is computed; what the process, the data and a step's
// activations take is measured (plan_job).
struct MemoryPlan {
  std::int64_t parameters = 0;       // every network, fp32, padded flat buffers
  std::int64_t gradients = 0;        // of trained networks
  std::int64_t sum_buffers = 0;      // the exact sum's binary counter: max(1, log2(M / ranks)) buffers a trained network
  std::int64_t moments = 0;          // AdamW's two, this rank's piece
  std::int64_t average = 0;          // this rank's piece
  std::int64_t checkpoint_copy = 0;  // of parameters, moments and average, this rank's piece
  std::int64_t exchange = 0;         // what arrives from a partner, in chunks
  std::int64_t process = 0;          // libraries, data set
  std::int64_t activations = 0;      // the step of one micro-batch
  // Parameters, gradients, sum buffers, moments, average: without these nothing starts.
  [[nodiscard]] std::int64_t state() const;
  // Checkpoint copies and activations are held at the same time; gathering an average before or after the steps is less.
  [[nodiscard]] std::int64_t total() const;
};

// What lengths alone decide. flat_length: elements of one network's flat buffer (FlatParameters::length()); a distill job holds
// three such networks and trains two, of which the fake score's is longer by head_length where it carries a discriminator's head.
MemoryPlan state_plan(const JobSpec& spec, std::int64_t flat_length, int ranks, std::int64_t head_length = 0);

// Bytes that this machine can still give: MemAvailable, or less where a control group says so.
std::int64_t available_memory();
// The largest resident set of this process so far.
std::int64_t peak_resident_bytes();

// Throws kConflict with the numbers when the state of `ranks_here` ranks can't fit into available_memory().
void require_memory(const MemoryPlan& plan, int ranks_here);
// `flat` itself, once it is known that the job's state fits: for use before the rest of it is allocated. Errors: as require_memory.
// `fake`: a distillation's fake score.
FlatParameters& that_fits(FlatParameters& flat, const RunContext& context);
FlatParameters& that_fits(FlatParameters& flat, const FlatParameters& fake, const RunContext& context);

// One train_teacher, generate_pairs or distill job of a pipeline: networks, bytes a rank, pair-set bytes, images. Builds its networks
// and runs a micro-batch or two of its step to measure, so a process plans one job. `ranks` 0: as the spec says. Networks that a
// distill job takes from another job of the pipeline need not exist yet. Errors: kUsage; kNotFound, kMismatch for files that a job
// names; kConflict when the planning itself can't fit.
nlohmann::json plan_job(const Pipeline& pipeline, const std::string& name, int ranks);

}  // namespace onestep
