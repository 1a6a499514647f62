#include "worker/models/vgg_lpips.h"

#include <utility>

#include "common/error.h"

namespace onestep {
namespace {

// Where a convolution stands among torchvision's `features`, in which slice of the lpips package, and its channels.
struct TrunkLayer {
  int index, slice;
  std::int64_t in, out;
};
constexpr std::array<TrunkLayer, 13> kTrunk{{{0, 1, 3, 64},
                                             {2, 1, 64, 64},
                                             {5, 2, 64, 128},
                                             {7, 2, 128, 128},
                                             {10, 3, 128, 256},
                                             {12, 3, 256, 256},
                                             {14, 3, 256, 256},
                                             {17, 4, 256, 512},
                                             {19, 4, 512, 512},
                                             {21, 4, 512, 512},
                                             {24, 5, 512, 512},
                                             {26, 5, 512, 512},
                                             {28, 5, 512, 512}}};
constexpr std::array<std::int64_t, 5> kTapChannels{64, 128, 256, 512, 512};
constexpr double kLengthEpsilon = 1e-10;

bool ends_a_slice(std::size_t layer) { return layer + 1 == kTrunk.size() || kTrunk[layer + 1].slice != kTrunk[layer].slice; }

std::string torchvision_name(const TrunkLayer& layer) { return "features." + std::to_string(layer.index); }

std::string lpips_name(const TrunkLayer& layer) {
  return "net.slice" + std::to_string(layer.slice) + "." + std::to_string(layer.index);
}

std::string lin_name(std::size_t tap) { return "lin" + std::to_string(tap) + ".model.1.weight"; }

bool is_ignored(const std::string& name) {
  return name.starts_with("classifier.") || name.starts_with("lins.") || name.starts_with("scaling_layer.");
}

// The names of lpips_tensors() for those of the lpips package.
std::vector<TensorView> renamed(std::vector<TensorView> tensors) {
  for (TensorView& view : tensors) {
    for (const TrunkLayer& layer : kTrunk) {
      const std::string theirs = lpips_name(layer) + ".";
      if (view.name.starts_with(theirs)) {
        view.name = torchvision_name(layer) + "." + view.name.substr(theirs.size());
        break;
      }
    }
  }
  return tensors;
}

}  // namespace

std::vector<ExpectedTensor> lpips_tensors() {
  std::vector<ExpectedTensor> tensors;
  for (const TrunkLayer& layer : kTrunk) {
    tensors.push_back({torchvision_name(layer) + ".weight", {layer.out, layer.in, 3, 3}});
    tensors.push_back({torchvision_name(layer) + ".bias", {layer.out}});
  }
  for (std::size_t tap = 0; tap < kTapChannels.size(); ++tap) {
    tensors.push_back({lin_name(tap), {1, kTapChannels[tap], 1, 1}});
  }
  return tensors;
}

VggLpips::VggLpips(const std::vector<TensorView>& tensors, const std::string& where, const LpipsSpec& options)
    : options_(options) {
  static_assert(kTrunk.size() == kConvolutions && kTapChannels.size() == kTaps);
  const auto weights = take_weights(renamed(tensors), lpips_tensors(), where, is_ignored);
  for (std::size_t i = 0; i < kConvolutions; ++i) {
    convolutions_[i] = FrozenConvolution(weights.at(torchvision_name(kTrunk[i]) + ".weight"), weights.at(torchvision_name(kTrunk[i]) + ".bias"));
  }
  for (std::size_t tap = 0; tap < kTaps; ++tap) lin_[tap] = weights.at(lin_name(tap));
  // ImageNet's mean and deviation, carried over from [0,1] to [-1,1] by the authors.
  shift_ = torch::tensor({-.030f, -.088f, -.188f}).view({1, 3, 1, 1});
  scale_ = torch::tensor({.458f, .448f, .450f}).view({1, 3, 1, 1});
}

void VggLpips::move_to(const torch::Device& device, torch::ScalarType dtype) {
  for (FrozenConvolution& convolution : convolutions_) convolution.move_to(device, dtype);
  for (torch::Tensor& lin : lin_) lin = lin.to(device);
  shift_ = shift_.to(device);
  scale_ = scale_.to(device);
}

std::array<torch::Tensor, VggLpips::kTaps> VggLpips::unit_features(const torch::Tensor& images) const {
  std::array<torch::Tensor, kTaps> taps;
  torch::Tensor h = images;
  if (options_.resize > 0) {
    h = torch::upsample_bilinear2d(h, {options_.resize, options_.resize}, /*align_corners=*/false);
  }
  h = ((h - shift_) / scale_).to(convolutions_[0].dtype()).contiguous(torch::MemoryFormat::ChannelsLast);
  std::size_t tap = 0;
  for (std::size_t i = 0; i < kConvolutions; ++i) {
    h = convolutions_[i](h);
    if (!ends_a_slice(i)) continue;
    // A pixel whose features are all zero has length 0: its derivative is 0, not the root's at 0.
    const auto single = h.to(torch::kFloat32);
    const auto length = single.square().sum(1, /*keepdim=*/true).clamp_min(1e-30).sqrt();
    taps[tap++] = single / (length + kLengthEpsilon);
    if (tap == kTaps) break;
    h = options_.pooling == "average" ? torch::avg_pool2d(h, 2) : torch::max_pool2d(h, 2);
  }
  return taps;
}

torch::Tensor VggLpips::operator()(const torch::Tensor& x, const torch::Tensor& reference) const {
  const bool is_picture = x.dim() == 4 && x.size(1) == 3 && x.sizes() == reference.sizes();
  const bool is_large = options_.resize > 0 || (is_picture && x.size(2) >= 16 && x.size(3) >= 16);
  if (!is_picture || !is_large) {
    throw Error(ErrorCode::kMismatch, "lpips: expected two batches [B,3,H,W] of one shape, 16 pixels or more a side, found " +
                                          c10::str(x.sizes()) + " and " + c10::str(reference.sizes()));
  }
  const auto taps = unit_features(x);
  std::array<torch::Tensor, kTaps> constant;
  {
    torch::NoGradGuard no_grad;
    constant = unit_features(reference);
  }
  torch::Tensor distance;
  for (std::size_t tap = 0; tap < kTaps; ++tap) {
    const auto at_pixels = ((taps[tap] - constant[tap]).square() * lin_[tap]).sum(1);  // (B, H, W)
    const auto term = at_pixels.mean({1, 2});
    distance = distance.defined() ? distance + term : term;
  }
  return distance;
}

}  // namespace onestep
