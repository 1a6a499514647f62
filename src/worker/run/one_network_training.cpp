#include "worker/run/one_network_training.h"

#include <utility>

#include "worker/run/leaf_figures.h"
#include "worker/run/memory_plan.h"

namespace onestep {

OneNetworkTraining::OneNetworkTraining(const RunContext& context, torch::nn::Module& module, OneNetworkOptions options)
    : context_(context),
      options_(std::move(options)),
      flat_(module, context.spec.micro_batches, true),
      updater_(options_.name, that_fits(flat_, context), context.communicator, context.spec.micro_batches, context.spec.reduction,
               {options_.ema_half_life_images, options_.batch}) {}

void OneNetworkTraining::start_at(std::int64_t iteration) {
  if (iteration == 0) {
    updater_.restart(options_.optimizer, num_iterations());
  } else {
    updater_.resume(options_.optimizer, num_iterations());
  }
}

std::map<std::string, double> OneNetworkTraining::iterate(std::int64_t iteration) {
  const std::int64_t micro_batches = context_.spec.micro_batches;
  const std::int64_t rows = options_.batch / micro_batches;
  const auto range = micro_batch_range(micro_batches, context_.communicator.rank(), context_.communicator.size());
  LeafFigures figures(context_.communicator, micro_batches, options_.figures);
  for (std::int64_t m = range.first; m < range.first + range.count; ++m) {
    const std::vector<torch::Tensor> losses = micro_batch_losses(iteration, m * rows, rows);
    losses.front().backward();
    updater_.add_micro_batch();
    std::vector<double> values;
    for (const torch::Tensor& loss : losses) values.push_back(loss.item<double>());
    figures.add(values);
  }
  const UpdateReport update = updater_.step();
  auto result = figures.reduce();
  result["gradient_norm"] = update.gradient_norm;
  result["learning_rate"] = updater_.learning_rate();
  return result;
}

}  // namespace onestep
