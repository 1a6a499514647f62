#include "worker/run/device_network.h"

namespace onestep {

DeviceNetwork::DeviceNetwork(torch::nn::Module& module, std::int64_t pieces, bool trainable, const torch::Device& device, torch::ScalarType dtype) {
  const torch::NoGradGuard no_grad;
  FlatParameters flat(module, pieces, /*trainable=*/false);
  views_ = flat.views();
  values_ = flat.values().to(device);
  shadow_ = values_.to(dtype);
  if (trainable) gradient_ = torch::zeros_like(shadow_);
  auto parameters = module.named_parameters();
  for (const FlatView& view : views_) {
    torch::Tensor& parameter = parameters[view.name];
    auto values = shadow_.narrow(0, view.offset, view.length).view(view.shape);
    if (!trainable && values.dim() == 4) values = values.contiguous(torch::MemoryFormat::ChannelsLast);
    parameter.set_data(values);
    parameter.set_requires_grad(trainable);
    if (trainable) parameter.mutable_grad() = gradient_.narrow(0, view.offset, view.length).view(view.shape);
  }
  for (auto& buffer : module.named_buffers()) buffer.value().set_data(buffer.value().to(device));
}

}  // namespace onestep
