// A job that trains one network on a mean over a batch, cut into micro-batches: all of it but the loss.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/job_spec.h"
#include "worker/run/network_updater.h"
#include "worker/run/run_context.h"
#include "worker/run/trainer.h"
#include "worker/tensors/flat_parameters.h"
#include "worker/tensors/torch.h"

namespace onestep {

struct OneNetworkOptions {
  std::string name;  // of the updater in checkpoints, and of the stage
  std::int64_t images = 0, batch = 0;
  double ema_half_life_images = 0;
  OptimizerSpec optimizer;
  std::vector<std::string> figures;  // what micro_batch_losses() returns
};

// The spec of such a job has these fields under these names.
template <class Spec>
OneNetworkOptions one_network_options(std::string name, const Spec& spec, std::vector<std::string> figures) {
  return {std::move(name), spec.images, spec.batch, spec.ema_half_life_images, spec.optimizer, std::move(figures)};
}

class OneNetworkTraining : public Training {
 public:
  [[nodiscard]] std::int64_t num_iterations() const final { return options_.images / options_.batch; }
  [[nodiscard]] std::int64_t images_after(std::int64_t iterations) const final { return iterations * options_.batch; }
  [[nodiscard]] std::string stage_of(std::int64_t) const final { return options_.name; }
  void start_at(std::int64_t iteration) final;
  std::map<std::string, double> iterate(std::int64_t iteration) final;
  std::vector<NetworkUpdater*> updaters() final { return {&updater_}; }

  // The delivered weights are the average's. Collective.
  [[nodiscard]] torch::Tensor average() { return updater_.gather_average(); }
  [[nodiscard]] const std::vector<FlatView>& views() const { return flat_.views(); }

 protected:
  // `context` and `module` must outlive it. Errors: kConfig, with the numbers, when they can't fit into memory.
  OneNetworkTraining(const RunContext& context, torch::nn::Module& module, OneNetworkOptions options);
  // Of `rows` samples from the batch's sample `first` on, each divided by the global batch: the figures; the first is differentiated.
  virtual std::vector<torch::Tensor> micro_batch_losses(std::int64_t iteration, std::int64_t first, std::int64_t rows) = 0;
  [[nodiscard]] const RunContext& context() const { return context_; }
  // The network goes on as its average. Collective.
  void adopt_average() { flat_.values().copy_(average()); }

 private:
  const RunContext& context_;
  OneNetworkOptions options_;
  FlatParameters flat_;
  NetworkUpdater updater_;
};

}  // namespace onestep
