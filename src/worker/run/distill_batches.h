// A rank's micro-batches of a distillation: which fresh samples, pairs, prompts and real images each one gets.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "worker/data/ordered_images.h"
#include "worker/data/pair_reader.h"
#include "worker/data/prompt_embeddings.h"
#include "worker/dmd/dmd_step.h"
#include "worker/run/run_context.h"
#include "worker/run/trainer.h"

namespace onestep {

// Borrowed; null: none.
struct DistillSources {
  const PairSet* pairs = nullptr;
  const PromptEmbeddings* prompts = nullptr;   // of networks with text
  const LabelledImages* real_images = nullptr;  // for a discriminator; of networks with text: latents, labels number the prompts
};

// What one iteration wants, over all M micro-batches.
struct DistillWish {
  std::int64_t fresh = 0;                      // fresh samples
  bool pairs = false;                          // those that read_pairs() said, if any
  std::optional<std::int64_t> real_position;   // as many real images as fresh samples, from here on in their order
};

class DistillBatches {
 public:
  DistillBatches(const RunContext& context, const DistillSpec& spec, const DistillSources& sources);

  // From now on, an iteration that wants pairs gets so many, from this position of their order on; 0: none.
  void read_pairs(std::int64_t pairs_an_iteration, std::int64_t first_position);
  // In the order of the micro-batches. Errors: those of the readers.
  [[nodiscard]] std::vector<MicroBatch> next(std::uint32_t step, const DistillWish& wish);

  [[nodiscard]] std::int64_t num_pairs() const { return pairs_per_micro_batch_ * context_.spec.micro_batches; }  // an iteration
  // Seconds that training has stood waiting for pairs; none while none are read.
  [[nodiscard]] std::optional<double> waited_s() const;

 private:
  void add_pairs(const PairBatch& pairs, std::vector<MicroBatch>& batches) const;
  void add_real_images(std::int64_t position, std::vector<MicroBatch>& batches) const;

  const RunContext& context_;
  const DistillSpec& spec_;
  DistillSources sources_;
  MicroBatchRange range_;
  std::unique_ptr<PairReader> reader_;
  std::int64_t pairs_per_micro_batch_ = 0;
};

}  // namespace onestep
