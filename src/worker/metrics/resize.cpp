#include "worker/metrics/resize.h"

#include <algorithm>
#include <vector>

#include "common/error.h"
#include "worker/metrics/pil_resize.h"

namespace onestep {
namespace {

constexpr std::int64_t kSide = 299;

// The two source pixels of each target pixel along one axis.
struct Neighbours {
  std::vector<std::int64_t> low, high;
  std::vector<float> share;  // of `high`
};

Neighbours neighbours_of(std::int64_t in, std::int64_t out) {
  Neighbours n;
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  for (std::int64_t o = 0; o < out; ++o) {
    const float source = static_cast<float>(o) * scale;
    const std::int64_t low = std::min(static_cast<std::int64_t>(source), in - 1);
    n.low.push_back(low);
    n.high.push_back(std::min(low + 1, in - 1));
    n.share.push_back(source - static_cast<float>(low));
  }
  return n;
}

}  // namespace

InceptionResize inception_resize(const std::string& name) {
  if (name == "pytorch_fid") return InceptionResize::kPytorchFid;
  if (name == "tf1") return InceptionResize::kTf1;
  if (name == "clean_fid") return InceptionResize::kCleanFid;
  throw Error(ErrorCode::kConfig, "resize: expected pytorch_fid, tf1 or clean_fid, found \"" + name + "\"");
}

torch::Tensor resize_bilinear_tf1(const torch::Tensor& images, std::int64_t height, std::int64_t width) {
  if (images.dim() != 4 || images.scalar_type() != torch::kFloat32 || images.numel() == 0) {
    throw Error(ErrorCode::kMismatch, "resize: expected fp32 pictures [B,C,H,W], found " + c10::str(images.sizes()));
  }
  const auto from = images.contiguous();
  const std::int64_t planes = from.size(0) * from.size(1), rows = from.size(2), columns = from.size(3);
  const Neighbours y = neighbours_of(rows, height), x = neighbours_of(columns, width);
  auto to = torch::empty({from.size(0), from.size(1), height, width});
  const float* source = from.const_data_ptr<float>();
  float* target = to.data_ptr<float>();
  for (std::int64_t p = 0; p < planes; ++p, source += rows * columns) {
    for (std::size_t r = 0; r < y.low.size(); ++r) {
      const float* upper = source + y.low[r] * columns;
      const float* lower = source + y.high[r] * columns;
      for (std::size_t c = 0; c < x.low.size(); ++c) {
        const float top = upper[x.low[c]] + (upper[x.high[c]] - upper[x.low[c]]) * x.share[c];
        const float bottom = lower[x.low[c]] + (lower[x.high[c]] - lower[x.low[c]]) * x.share[c];
        *target++ = top + (bottom - top) * y.share[r];
      }
    }
  }
  return to;
}

torch::Tensor inception_input(const torch::Tensor& images, InceptionResize resize) {
  if (images.dim() != 4 || images.scalar_type() != torch::kUInt8 || (images.size(1) != 1 && images.size(1) != 3) ||
      images.numel() == 0) {
    throw Error(ErrorCode::kMismatch, std::string("inception's input: expected bytes [B,1 or 3,H,W], found ") +
                                          torch::toString(images.scalar_type()) + " " + c10::str(images.sizes()));
  }
  const auto floats = images.to(torch::kFloat32);
  torch::Tensor input;
  switch (resize) {
    case InceptionResize::kPytorchFid:
      input = torch::upsample_bilinear2d(floats / 255, {kSide, kSide}, /*align_corners=*/false) * 2 - 1;
      break;
    case InceptionResize::kTf1:
      input = (resize_bilinear_tf1(floats, kSide, kSide) - 128) / 128;
      break;
    case InceptionResize::kCleanFid:
      input = (pil_resize_floats(floats, kSide, kSide, ResizeFilter::kBicubic).clamp(0, 255) - 128) / 128;
      break;
  }
  return input.size(1) == 3 ? input : input.expand({input.size(0), 3, kSide, kSide}).contiguous();
}

torch::Tensor to_bytes(const torch::Tensor& images) {
  return (images * 127.5 + 128).clamp(0, 255).to(torch::kUInt8);
}

}  // namespace onestep
