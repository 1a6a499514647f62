#include "worker/metrics/pil_resize.h"

#include <span>

#include "common/error.h"

namespace onestep {
namespace {

template <class Pixel>
torch::Tensor pass(const torch::Tensor& from, const std::vector<std::int64_t>& sizes, const ResampleShape& shape,
                   ResizeFilter filter) {
  auto to = torch::empty(sizes, from.options());
  resample(std::span(from.const_data_ptr<Pixel>(), static_cast<std::size_t>(from.numel())),
           std::span(to.data_ptr<Pixel>(), static_cast<std::size_t>(to.numel())), shape, filter);
  return to;
}

template <class Pixel>
torch::Tensor resize(const torch::Tensor& images, torch::ScalarType type, std::int64_t height, std::int64_t width,
                     ResizeFilter filter) {
  if (images.dim() != 4 || images.scalar_type() != type || images.numel() == 0 || height < 1 || width < 1) {
    throw Error(ErrorCode::kMismatch, std::string("resize: expected pictures [B,C,H,W] of ") + torch::toString(type) +
                                          ", found " + torch::toString(images.scalar_type()) + " " +
                                          c10::str(images.sizes()));
  }
  torch::Tensor h = images.contiguous();
  const std::int64_t B = h.size(0), C = h.size(1), from_height = h.size(2), from_width = h.size(3);
  // A direction whose size stays is left alone, as Pillow leaves it.
  if (width != from_width) h = pass<Pixel>(h, {B, C, from_height, width}, {B * C * from_height, from_width, width, 1}, filter);
  if (height != from_height) h = pass<Pixel>(h, {B, C, height, width}, {B * C, from_height, height, width}, filter);
  return h;
}

}  // namespace

torch::Tensor pil_resize_bytes(const torch::Tensor& images, std::int64_t height, std::int64_t width, ResizeFilter filter) {
  return resize<std::uint8_t>(images, torch::kUInt8, height, width, filter);
}

torch::Tensor pil_resize_floats(const torch::Tensor& images, std::int64_t height, std::int64_t width, ResizeFilter filter) {
  return resize<float>(images, torch::kFloat32, height, width, filter);
}

}  // namespace onestep
