#include "worker/run/device_loop.h"

#include <utility>

#include "common/error.h"

namespace onestep {
namespace {

// Into the same memory while the shape stays.
void place_tensor(torch::Tensor& there, const torch::Tensor& here, const torch::Device& device) {
  if (there.defined() && here.defined() && there.sizes() == here.sizes()) {
    there.copy_(here);
  } else {
    there = here.defined() ? here.to(device, here.scalar_type(), /*non_blocking=*/false, /*copy=*/true) : torch::Tensor();
  }
}

}  // namespace

DeviceLoop::DeviceLoop(const torch::Device& device, std::vector<NetworkUpdater*> updaters)
    : device_(device),
      updaters_(std::move(updaters)),
      step_(torch::zeros({1}, torch::TensorOptions(torch::kInt64).device(device))),
      lambda_(torch::zeros({2}, torch::TensorOptions(torch::kFloat32).device(device))) {}

void DeviceLoop::reset() {
  recorded_.reset();
  report_ = {};
  batches_.clear();
  num_eager_ = 0;
  for (NetworkUpdater* updater : updaters_) updater->set_recording(false);
}

DmdSettings DeviceLoop::place(const DmdSettings& settings, std::uint32_t step) {
  step_.fill_(static_cast<std::int64_t>(step));
  lambda_[0].fill_(settings.lambda_dm);
  lambda_[1].fill_(settings.lambda_reg);
  DmdSettings placed = settings;
  placed.device_step = step_;
  placed.device_lambda = lambda_;
  return placed;
}

const std::vector<MicroBatch>& DeviceLoop::place(const std::vector<MicroBatch>& batches) {
  const torch::NoGradGuard no_grad;
  if (recorded_ && batches.size() != batches_.size()) {
    throw Error(ErrorCode::kInternal, "device: expected " + std::to_string(batches_.size()) + " micro-batches, as recorded, found " +
                                          std::to_string(batches.size()));
  }
  batches_.resize(batches.size());
  for (std::size_t i = 0; i < batches.size(); ++i) {
    MicroBatch& there = batches_[i];
    there.first_sample = batches[i].first_sample;
    there.num_samples = batches[i].num_samples;
    place_tensor(there.pair_noise, batches[i].pair_noise, device_);
    place_tensor(there.pair_image, batches[i].pair_image, device_);
    place_tensor(there.pair_label, batches[i].pair_label, device_);
    place_tensor(there.text, batches[i].text, device_);
    place_tensor(there.pair_text, batches[i].pair_text, device_);
    there.first_pair = batches[i].first_pair;
    place_tensor(there.real_image, batches[i].real_image, device_);
    place_tensor(there.real_label, batches[i].real_label, device_);
  }
  return batches_;
}

const DmdReport& DeviceLoop::run(const std::function<DmdReport()>& work) {
  if (num_eager_ < kEager) {
    ++num_eager_;
    return report_ = work();
  }
  if (!recorded_) {
    for (NetworkUpdater* updater : updaters_) updater->set_recording(true);
    recorded_ = record([this, work] { report_ = work(); });
  }
  for (NetworkUpdater* updater : updaters_) updater->prepare_step();
  recorded_->run();
  return report_;
}

}  // namespace onestep
