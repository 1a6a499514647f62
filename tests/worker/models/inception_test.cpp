#include "worker/models/inception.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "support/files.h"
#include "support/keyed_feature_nets.h"
#include "support/parity.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;

const KeyedWeights& weights() {
  static const KeyedWeights kWeights(inception_tensors());
  return kWeights;
}

const Inception& inception() {
  static const Inception kInception(weights().views, "keyed");
  return kInception;
}

TEST(Inception, HasThePublishedParameters) {
  std::int64_t trunk = 0, fc = 0, convolutions = 0;
  for (const ExpectedTensor& tensor : inception_tensors()) {
    std::int64_t size = 1;
    for (const std::int64_t dimension : tensor.shape) size *= dimension;
    if (tensor.name.starts_with("fc.")) fc += size;
    else if (!tensor.name.ends_with("running_mean") && !tensor.name.ends_with("running_var")) trunk += size;
    if (tensor.name.ends_with(".conv.weight")) ++convolutions;
  }
  EXPECT_EQ(trunk, 21'785'568);
  EXPECT_EQ(trunk + fc, 23'850'960);
  EXPECT_EQ(convolutions, 94);
}

// tools/golden/make_inception_golden.py: the packages' own networks on the same weights. fp32 against fp32 over 48 layers, norms
// folded here and apart there: 1e-5.
TEST(Inception, FeaturesAndLogitsAreThePackages) {
  const SafetensorsFile golden(ONESTEP_SOURCE_DIR "/tests/golden/inception.safetensors");
  // The network alone: the input of pytorch-fid's small picture, made as its forward() makes it.
  const auto x = torch::upsample_bilinear2d(keyed_picture(48, 40).to(torch::kFloat32) / 255, {299, 299}, false) * 2 - 1;
  const auto features = inception().features(x);
  ParityRow row({"inception", versions_of(nlohmann::json::parse(golden.metadata().at("versions")), {"pytorch-fid", "torch"}),
                 "1 x 3 x 299 x 299, 2,048 features and 1,008 logits, fp32", kRelativeNorm, "none: features are not differentiated"});
  row.forward(relative_difference(features, golden_tensor(golden, "small.pytorch_fid.features")), 1e-5);
  row.forward(relative_difference(inception().logits(features), golden_tensor(golden, "small.pytorch_fid.logits")), 1e-5);
  row.forward(relative_difference(inception().logits_without_bias(features), golden_tensor(golden, "small.pytorch_fid.logits_unbiased")), 1e-5);
}

// The nodes of TensorFlow's graph, as NVIDIA's file has them; its norms have no scale.
TEST(Inception, AsksForTheNamesOfTheGraphWhereItSeesThem) {
  KeyedWeights theirs({});
  theirs.add("layers.conv.weight", torch::zeros({32, 3, 3, 3}));
  const auto error = error_of([&] { Inception(theirs.views, "nvidia.safetensors"); });
  ASSERT_TRUE(error);
  for (const char* name : {"layers.conv.mean", "layers.conv_4.beta", "layers.mixed.conv.weight", "layers.mixed_3.tower.conv_2.var",
                           "layers.mixed_10.tower_1.mixed.conv_1.beta", "output.weight", "output.bias"}) {
    EXPECT_THAT(error->message, HasSubstr(std::string("\n  ") + name + ": missing"));
  }
}

TEST(Inception, IsTheSameUnderTheNamesOfTheGraph) {
  KeyedWeights ours({}), theirs({});
  for (const ExpectedTensor& tensor : inception_tensors()) {
    ours.add(tensor.name, tensor.name.ends_with(".bn.weight") ? torch::ones(tensor.shape)
                                                              : torch::full(tensor.shape, 0.01f));
  }
  const auto missing = error_of([&] {
    KeyedWeights first({});
    first.add("layers.conv.weight", torch::zeros({32, 3, 3, 3}));
    Inception(first.views, "x");
  });
  ASSERT_TRUE(missing);
  std::istringstream lines(missing->message);
  std::string line;
  std::getline(lines, line);
  theirs.add("layers.conv.weight", torch::full({32, 3, 3, 3}, 0.01f));
  while (std::getline(lines, line)) {  // "  layers.conv.beta: missing, expected F32 [32]"
    const std::string name = line.substr(2, line.find(':') - 2);
    std::vector<std::int64_t> shape;
    std::istringstream numbers(line.substr(line.find('[') + 1));
    std::int64_t number = 0;
    for (char comma = ','; numbers >> number; numbers >> comma) shape.push_back(number);
    theirs.add(name, torch::full(shape, 0.01f));
  }
  const auto x = torch::full({1, 3, 299, 299}, 0.5f);
  EXPECT_TRUE(torch::equal(Inception(ours.views, "ours").features(x), Inception(theirs.views, "theirs").features(x)));
}

TEST(Inception, EveryTensorThatDoesNotFitIsNamed) {
  std::vector<TensorView> views = weights().views;
  views[0].shape = {32, 3, 9};
  views[1].name = "Conv2d_1a_3x3.bn.gamma";
  views[2].dtype = DType::kF16;
  views.push_back(weights().views[3]);
  TensorView counter = weights().views[3];
  counter.name = "Mixed_5b.branch1x1.bn.num_batches_tracked";
  views.push_back(counter);
  const auto error = error_of([&] { Inception(views, "file.safetensors"); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kMismatch);
  EXPECT_THAT(error->message, HasSubstr("file.safetensors: 5 tensors"));
  EXPECT_THAT(error->message, HasSubstr("Conv2d_1a_3x3.conv.weight: expected F32 [32, 3, 3, 3], found F32 [32, 3, 9]"));
  EXPECT_THAT(error->message, HasSubstr("Conv2d_1a_3x3.bn.weight: missing"));
  EXPECT_THAT(error->message, HasSubstr("Conv2d_1a_3x3.bn.gamma: unexpected"));
  EXPECT_THAT(error->message, HasSubstr("found F16"));
  EXPECT_THAT(error->message, HasSubstr("found twice"));
}

TEST(Inception, RefusesOtherImages) {
  EXPECT_TRUE(error_of([] { static_cast<void>(inception().features(torch::zeros({1, 3, 224, 224}))); }));
  EXPECT_TRUE(error_of([] { static_cast<void>(inception().features(torch::zeros({1, 3, 299, 299}, torch::kUInt8))); }));
}

}  // namespace
}  // namespace onestep
