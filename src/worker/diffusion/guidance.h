// Classifier-free guidance (Ho and Salimans 2022): the network with its condition, pushed away from the one without.
#pragma once

#include "worker/diffusion/denoiser.h"
#include "worker/tensors/torch.h"

namespace onestep {

// x0 = x0_null + scale (x0_condition - x0_null): guidance of the noise or of v is the same, since each is affine in x0 at one
// x_t. One call of twice the batch, in the order [null, condition]; off (the plain network) unless scale > 1.
// `denoiser` must outlive it.
class GuidedDenoiser final : public Denoiser {
 public:
  // null_text [1,T,D]: the embedding of no text, for networks conditioned on text; classes have their own null label.
  GuidedDenoiser(Denoiser& denoiser, double scale, torch::Tensor null_text = {});
  // Errors: kConfig when there is nothing to guide by: no labels and no text, or text without a null text.
  torch::Tensor denoise(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition) override;
  [[nodiscard]] const NoiseSchedule& schedule() const override { return denoiser_.schedule(); }
  [[nodiscard]] Prediction prediction() const override { return denoiser_.prediction(); }
  [[nodiscard]] ImageShape image_shape() const override { return denoiser_.image_shape(); }
  [[nodiscard]] std::int64_t num_classes() const override { return denoiser_.num_classes(); }
  torch::nn::Module& module() override { return denoiser_.module(); }
  void recompute_in_backward(bool on) override { denoiser_.recompute_in_backward(on); }

 private:
  [[nodiscard]] Condition with_null(const Condition& condition) const;

  Denoiser& denoiser_;
  double scale_;
  torch::Tensor null_text_;
};

}  // namespace onestep
