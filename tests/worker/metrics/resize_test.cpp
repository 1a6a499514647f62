#include "worker/metrics/resize.h"

#include <gtest/gtest.h>

#include "common/error.h"
#include "common/hash.h"
#include "support/golden_metrics.h"
#include "support/parity.h"
#include "support/test_picture.h"
#include "worker/metrics/pil_resize.h"

namespace onestep {
namespace {

const SafetensorsFile& golden() {
  static const SafetensorsFile kFile(ONESTEP_SOURCE_DIR "/tests/golden/resize.safetensors");
  return kFile;
}

struct Sizes {
  const char* name;
  std::int64_t from_height, from_width, to_height, to_width;
};
constexpr Sizes kUp{"up", 12, 9, 20, 31}, kDown{"down", 50, 41, 17, 12};

double largest_difference(const torch::Tensor& a, const torch::Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST(Resize, Tf1IsTorchFidelitys) {
  for (const Sizes& s : {kUp, kDown}) {
    const auto found = resize_bilinear_tf1(keyed_picture(s.from_height, s.from_width).to(torch::kFloat32), s.to_height, s.to_width);
    // fp32 over values to 255: two weights and two sums.
    EXPECT_LT(largest_difference(found, golden_tensor(golden(), std::string(s.name) + ".tf1")), 1e-4) << s.name;
  }
}

TEST(Resize, CleanFidsBicubicIsCleanFids) {
  for (const Sizes& s : {kUp, kDown}) {
    const auto found = pil_resize_floats(keyed_picture(s.from_height, s.from_width).to(torch::kFloat32), s.to_height, s.to_width,
                                         ResizeFilter::kBicubic)
                           .clamp(0, 255);
    // fp64 sums in both, rounded twice to fp32.
    EXPECT_LT(largest_difference(found, golden_tensor(golden(), std::string(s.name) + ".clean_fid")), 2e-5) << s.name;
  }
}

TEST(PilResize, BytesAreExactlyPillows) {
  for (const Sizes& s : {kUp, kDown}) {
    const auto picture = keyed_picture(s.from_height, s.from_width);
    EXPECT_TRUE(torch::equal(pil_resize_bytes(picture, s.to_height, s.to_width, ResizeFilter::kLanczos),
                             golden_tensor(golden(), std::string(s.name) + ".lanczos")))
        << s.name;
    EXPECT_TRUE(torch::equal(pil_resize_bytes(picture, s.to_height, s.to_width, ResizeFilter::kBicubic),
                             golden_tensor(golden(), std::string(s.name) + ".bicubic")))
        << s.name;
  }
}

// The COCO protocol's 512 -> 256 among them.
TEST(PilResize, LargePicturesHavePillowsDigest) {
  const auto cases = golden_metrics().at("pil");
  ParityRow row({"Lanczos resize", versions_of(golden_metrics().at("versions"), {"pillow"}),
                 "bytes, 512 x 512 -> 256 x 256, and three sizes more", "pictures whose SHA-256 differs", "none: bytes"});
  ASSERT_GE(cases.size(), 4u);
  for (const auto& item : cases) {
    const auto picture = keyed_picture(item.at("from").at(0), item.at("from").at(1));
    const auto found = pil_resize_bytes(picture, item.at("to").at(0), item.at("to").at(1), ResizeFilter::kLanczos);
    row.forward(sha256(found.const_data_ptr(), found.nbytes()) == item.at("sha256").get<std::string>() ? 0 : 1, 0, item.dump());
  }
}

TEST(PilResize, RefusesOtherTypes) {
  EXPECT_THROW(pil_resize_bytes(torch::zeros({1, 3, 4, 4}), 2, 2, ResizeFilter::kLanczos), Error);
  EXPECT_THROW(pil_resize_floats(torch::zeros({3, 4, 4}), 2, 2, ResizeFilter::kLanczos), Error);
  EXPECT_THROW(pil_resize_floats(torch::zeros({1, 3, 0, 4}), 2, 2, ResizeFilter::kLanczos), Error);
}

// tools/golden/make_inception_golden.py: every so-manieth value of the networks' inputs, which lie in [-1,1].
TEST(InceptionInput, IsThePackages) {
  const SafetensorsFile inputs(ONESTEP_SOURCE_DIR "/tests/golden/inception.safetensors");
  const auto versions = nlohmann::json::parse(inputs.metadata().at("versions"));
  for (const auto& [resize, component, package] : {std::tuple{"pytorch_fid", "FID, resize of pytorch-fid", "pytorch-fid"},
                                                   {"tf1", "FID, resize of TensorFlow 1", "torch-fidelity"},
                                                   {"clean_fid", "FID, resize of clean-fid", "clean-fid"}}) {
    ParityRow row({component, versions_of(versions, {package}), "the network's input of 48 x 40 and 331 x 350 bytes", kAbsolute,
                   "none: bytes"});
    for (const auto& [name, height, width] : {std::tuple{"small", 48, 40}, {"large", 331, 350}}) {
      const auto input = inception_input(keyed_picture(height, width), inception_resize(resize));
      EXPECT_EQ(input.sizes(), (std::vector<std::int64_t>{1, 3, 299, 299}));
      const auto probe = input.flatten().slice(0, 0, 1000 * (input.numel() / 1000), input.numel() / 1000);
      // fp32 at magnitude 255, divided by 128.
      row.forward(largest_difference(probe, golden_tensor(inputs, std::string(name) + "." + resize + ".input_probe")), 2e-6, name);
    }
  }
}

TEST(InceptionInput, GreyIsRepeatedAndOthersRefused) {
  const auto grey = keyed_picture(20, 20).narrow(1, 0, 1);
  EXPECT_TRUE(torch::equal(inception_input(grey, InceptionResize::kTf1),
                           inception_input(grey.expand({1, 3, 20, 20}), InceptionResize::kTf1)));
  EXPECT_THROW(inception_input(torch::zeros({1, 3, 20, 20}), InceptionResize::kTf1), Error);
  EXPECT_THROW(inception_input(torch::zeros({1, 2, 20, 20}, torch::kUInt8), InceptionResize::kTf1), Error);
  EXPECT_THROW(static_cast<void>(inception_resize("bilinear")), Error);
}

TEST(ToBytes, TruncatesAsEdmDoes) {
  const auto bytes = to_bytes(torch::tensor({-2.0f, -1.0f, 0.0f, 0.9999f, 1.0f, 3.0f}));
  EXPECT_TRUE(torch::equal(bytes, torch::tensor({0, 0, 128, 255, 255, 255}, torch::kUInt8)));
}

}  // namespace
}  // namespace onestep
