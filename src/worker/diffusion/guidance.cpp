#include "worker/diffusion/guidance.h"

#include <utility>

#include "common/error.h"

namespace onestep {

GuidedDenoiser::GuidedDenoiser(Denoiser& denoiser, double scale, torch::Tensor null_text)
    : denoiser_(denoiser), scale_(scale), null_text_(std::move(null_text)) {}

Condition GuidedDenoiser::with_null(const Condition& condition) const {
  if (!condition.labels.defined() && !condition.text.defined()) {
    throw Error(ErrorCode::kConfig, "guidance: expected labels or text to guide by, found neither");
  }
  Condition both;
  if (condition.labels.defined()) {
    both.labels = torch::cat({torch::full_like(condition.labels, -1), condition.labels});
  }
  if (condition.text.defined()) {
    if (!null_text_.defined()) {
      throw Error(ErrorCode::kConfig, "guidance: expected the embedding of no text beside the text, found none");
    }
    both.text = torch::cat({null_text_.expand_as(condition.text), condition.text});
  }
  return both;
}

torch::Tensor GuidedDenoiser::denoise(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition) {
  if (!(scale_ > 1)) return denoiser_.denoise(x_t, t, condition);
  const auto halves = denoiser_.denoise(torch::cat({x_t, x_t}), torch::cat({t, t}), with_null(condition)).chunk(2);
  return halves[0] + scale_ * (halves[1] - halves[0]);
}

}  // namespace onestep
