#include "worker/models/vgg_lpips.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/files.h"
#include "support/keyed_feature_nets.h"
#include "support/parity.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;

const KeyedWeights& lpips_weights() {
  static const KeyedWeights kWeights(lpips_tensors());
  return kWeights;
}

struct Case {
  const char* name;
  std::int64_t resize;
  const char* pooling;
  const char* description;
};

ParityCase lpips_row(const SafetensorsFile& golden, const char* package, const std::string& inputs, const std::string& no_backward = "") {
  return {"vgg_lpips", versions_of(nlohmann::json::parse(golden.metadata().at("versions")), {package}), inputs, kRelativeNorm, no_backward};
}

class LpipsGolden : public testing::TestWithParam<Case> {};

// tools/golden/make_lpips_golden.py: the lpips and piq packages on the same weights. fp32 against fp32 over 13 convolutions: 1e-5
// forward, 1e-4 for gradients; the pictures are such that no maximum and no ReLU hangs on rounding.
TEST_P(LpipsGolden, DistanceAndGradientAreThePackages) {
  const SafetensorsFile golden(ONESTEP_SOURCE_DIR "/tests/golden/lpips.safetensors");
  LpipsSpec options;
  options.resize = GetParam().resize;
  options.pooling = GetParam().pooling;
  const VggLpips lpips(lpips_weights().views, "keyed", options);
  auto x = golden_tensor(golden, "x").requires_grad_(true);
  const auto distance = lpips(x, golden_tensor(golden, "y"));
  const std::string name = GetParam().name;
  ParityRow row(lpips_row(golden, name == "lpips" ? "lpips" : "piq", "2 x 3 x 32 x 32, " + std::string(GetParam().description)));
  row.forward(relative_difference(distance.detach(), golden_tensor(golden, name + ".distance")), 1e-5);
  (distance * golden_tensor(golden, "weight")).sum().backward();
  row.backward(relative_difference(x.grad(), golden_tensor(golden, name + ".grad_x")), 1e-4, "x");
}

INSTANTIATE_TEST_SUITE_P(Packages, LpipsGolden,
                         testing::Values(Case{"lpips", 0, "max", "as they are, fp32"}, Case{"piq_64", 64, "max", "scaled to 64, fp32"},
                                         Case{"piq_average", 0, "average", "average pooling, fp32"}));

// The side DMD scales to.
TEST(Lpips, At224IsPiqs) {
  const SafetensorsFile golden(ONESTEP_SOURCE_DIR "/tests/golden/lpips.safetensors");
  torch::NoGradGuard no_grad;
  const VggLpips lpips(lpips_weights().views, "keyed", {});
  ParityRow row(lpips_row(golden, "piq", "2 x 3 x 32 x 32, scaled to 224, fp32", "none: in the row of lpips"));
  row.forward(relative_difference(lpips(golden_tensor(golden, "x"), golden_tensor(golden, "y")), golden_tensor(golden, "piq_224.distance")), 1e-5);
}

// The package itself at that side. Rounding decides one ReLU or maximum of 13 million otherwise: PyTorch's own fp32 is 1e-4 to 4e-4 from
// its fp64, and the golden file's `lpips_224` says how far on these pictures; so 1e-3 for the gradient, whose other errors are 1e-6.
TEST(Lpips, GradientAt224IsThePackages) {
  const SafetensorsFile golden(ONESTEP_SOURCE_DIR "/tests/golden/lpips.safetensors");
  const VggLpips lpips(lpips_weights().views, "keyed", {});
  auto x = golden_tensor(golden, "x_224").requires_grad_(true);
  const auto distance = lpips(x, golden_tensor(golden, "y_224"));
  ParityRow row(lpips_row(golden, "lpips", "1 x 3 x 32 x 32, scaled to 224, fp32; its own fp32 is " + golden.metadata().at("lpips_224") +
                                               " from its fp64, a ReLU that rounding decides"));
  row.forward(relative_difference(distance.detach(), golden_tensor(golden, "lpips_224.distance")), 1e-5);
  distance.sum().backward();
  row.backward(relative_difference(x.grad(), golden_tensor(golden, "lpips_224.grad_x")), 1e-3, "x");
}

LpipsSpec as_they_are() {
  LpipsSpec options;
  options.resize = 0;
  return options;
}

TEST(Lpips, HasThePublishedParameters) {
  std::int64_t trunk = 0, lin = 0;
  for (const ExpectedTensor& tensor : lpips_tensors()) {
    std::int64_t size = 1;
    for (const std::int64_t dimension : tensor.shape) size *= dimension;
    (tensor.name.starts_with("lin") ? lin : trunk) += size;
  }
  EXPECT_EQ(trunk, 14'714'688);
  EXPECT_EQ(lin, 1'472);
}

TEST(Lpips, EqualPicturesAreAtDistanceZeroWithAFiniteGradient) {
  const VggLpips lpips(lpips_weights().views, "keyed", as_they_are());
  auto x = torch::full({1, 3, 16, 16}, -1.0f).requires_grad_(true);
  const auto distance = lpips(x, x.detach());
  EXPECT_EQ(distance.item<float>(), 0);
  distance.sum().backward();
  EXPECT_TRUE(torch::isfinite(x.grad()).all().item<bool>());
}

// A pixel without any active feature has length 0.
TEST(Lpips, DeadFeaturesGiveAFiniteGradient) {
  KeyedWeights dead({});
  for (const ExpectedTensor& tensor : lpips_tensors()) {
    dead.add(tensor.name, tensor.name.ends_with(".bias") ? torch::full(tensor.shape, -1.0f) : torch::zeros(tensor.shape));
  }
  const VggLpips lpips(dead.views, "dead", as_they_are());
  auto x = torch::rand({1, 3, 16, 16}).requires_grad_(true);
  lpips(x, torch::zeros({1, 3, 16, 16})).sum().backward();
  EXPECT_TRUE(torch::isfinite(x.grad()).all().item<bool>());
}

TEST(Lpips, TakesTheNamesOfThePackage) {
  KeyedWeights theirs({});
  for (std::size_t i = 0; i < lpips_weights().views.size(); ++i) {
    std::string name = lpips_weights().views[i].name;
    if (name.starts_with("features.")) {
      const int index = std::stoi(name.substr(9));
      const int slice = index < 4 ? 1 : index < 9 ? 2 : index < 16 ? 3 : index < 23 ? 4 : 5;
      name = "net.slice" + std::to_string(slice) + "." + name.substr(9);
    }
    theirs.add(name, lpips_weights().tensors[i]);
  }
  theirs.add("lins.0.model.1.weight", torch::zeros({1, 64, 1, 1}));
  theirs.add("scaling_layer.shift", torch::zeros({1, 3, 1, 1}));
  const auto x = torch::rand({1, 3, 16, 16}), y = torch::rand({1, 3, 16, 16});
  EXPECT_TRUE(torch::equal(VggLpips(theirs.views, "theirs", as_they_are())(x, y),
                           VggLpips(lpips_weights().views, "ours", as_they_are())(x, y)));
}

TEST(Lpips, RefusesWhatDoesNotFit) {
  std::vector<TensorView> views = lpips_weights().views;
  views.pop_back();
  const auto error = error_of([&] { VggLpips(views, "trunk.safetensors", {}); });
  ASSERT_TRUE(error);
  EXPECT_THAT(error->message, HasSubstr("trunk.safetensors: 1 tensors"));
  EXPECT_THAT(error->message, HasSubstr("lin4.model.1.weight: missing, expected F32 [1, 512, 1, 1]"));
  const VggLpips lpips(lpips_weights().views, "keyed", as_they_are());
  EXPECT_TRUE(error_of([&] { static_cast<void>(lpips(torch::zeros({1, 1, 32, 32}), torch::zeros({1, 1, 32, 32}))); }));
  EXPECT_TRUE(error_of([&] { static_cast<void>(lpips(torch::zeros({1, 3, 32, 32}), torch::zeros({2, 3, 32, 32}))); }));
  EXPECT_TRUE(error_of([&] { static_cast<void>(lpips(torch::zeros({1, 3, 8, 8}), torch::zeros({1, 3, 8, 8}))); }));
}

}  // namespace
}  // namespace onestep
