#include "worker/run/distill_batches.h"

#include "worker/tensors/keyed_random.h"

namespace onestep {

DistillBatches::DistillBatches(const RunContext& context, const DistillSpec& spec, const DistillSources& sources)
    : context_(context),
      spec_(spec),
      sources_(sources),
      range_(micro_batch_range(context.spec.micro_batches, context.communicator.rank(), context.communicator.size())) {}

void DistillBatches::read_pairs(std::int64_t pairs_an_iteration, std::int64_t first_position) {
  reader_.reset();
  pairs_per_micro_batch_ = pairs_an_iteration / context_.spec.micro_batches;
  if (pairs_an_iteration == 0) return;
  PairSlice slice;
  slice.seed = context_.spec.seed;
  slice.max_pairs = spec_.max_pairs;
  slice.first_position = first_position;
  slice.global_count = pairs_an_iteration;
  slice.offset = range_.first * pairs_per_micro_batch_;
  slice.count = range_.count * pairs_per_micro_batch_;
  reader_ = std::make_unique<PairReader>(*sources_.pairs, slice);
}

std::vector<MicroBatch> DistillBatches::next(std::uint32_t step, const DistillWish& wish) {
  const std::int64_t samples = wish.fresh / context_.spec.micro_batches;
  std::vector<MicroBatch> batches;
  for (std::int64_t m = 0; m < range_.count; ++m) {
    MicroBatch& batch = batches.emplace_back();
    batch.first_sample = (range_.first + m) * samples;
    batch.num_samples = samples;
    if (sources_.prompts != nullptr && samples > 0) {
      const DrawKey key{context_.spec.seed, RandomStream::kGeneratorLabel, step};
      batch.text = sources_.prompts->text(keyed_integer(key, batch.first_sample, samples, sources_.prompts->size()));
    }
  }
  if (wish.pairs && reader_) add_pairs(reader_->next(), batches);
  if (wish.real_position && sources_.real_images != nullptr) add_real_images(*wish.real_position, batches);
  return batches;
}

std::optional<double> DistillBatches::waited_s() const {
  if (!reader_) return std::nullopt;
  return reader_->waited_s();
}

void DistillBatches::add_pairs(const PairBatch& pairs, std::vector<MicroBatch>& batches) const {
  for (std::size_t m = 0; m < batches.size(); ++m) {
    MicroBatch& batch = batches[m];
    const std::int64_t first = static_cast<std::int64_t>(m) * pairs_per_micro_batch_;
    batch.first_pair = range_.first * pairs_per_micro_batch_ + first;
    batch.pair_noise = pairs.noise.narrow(0, first, pairs_per_micro_batch_);
    batch.pair_image = pairs.image.narrow(0, first, pairs_per_micro_batch_);
    batch.pair_label = pairs.label.narrow(0, first, pairs_per_micro_batch_);
    if (sources_.prompts != nullptr) batch.pair_text = sources_.prompts->text(batch.pair_label);
  }
}

void DistillBatches::add_real_images(std::int64_t position, std::vector<MicroBatch>& batches) const {
  for (MicroBatch& batch : batches) {
    auto [images, labels] = ordered_images(*sources_.real_images, context_.spec.seed, RandomStream::kRealOrder,
                                           position + batch.first_sample, batch.num_samples);
    batch.real_image = images;
    batch.real_label = labels;
    if (sources_.prompts != nullptr) batch.real_text = sources_.prompts->text(labels);
  }
}

}  // namespace onestep
