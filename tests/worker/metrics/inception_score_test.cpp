#include "worker/metrics/inception_score.h"

#include <gtest/gtest.h>

#include "common/error.h"
#include "support/golden_metrics.h"
#include "support/keyed_features.h"
#include "support/parity.h"

namespace onestep {
namespace {

// torch-fidelity's isc on the same logits; both in fp64, sums of some thousand terms in another order.
TEST(InceptionScore, IsTorchFidelitys) {
  const auto golden = golden_metrics();
  const auto logits = keyed_features("isc", 205, 24) * 12;
  const InceptionScore shuffled = inception_score(logits, {});
  ParityRow row({"Inception Score", versions_of(golden.at("versions"), {"torch-fidelity"}), "205 x 24 logits, 10 splits, shuffled and not",
                 kAbsolute, "none: a metric"});
  row.forward(std::abs(shuffled.mean - golden.at("isc").at("inception_score_mean").get<double>()), 1e-10);
  row.forward(std::abs(shuffled.deviation - golden.at("isc").at("inception_score_std").get<double>()), 1e-10);
  InceptionScoreOptions in_order;
  in_order.shuffle = false;
  const InceptionScore unshuffled = inception_score(logits, in_order);
  row.forward(std::abs(unshuffled.mean - golden.at("isc_unshuffled").at("inception_score_mean").get<double>()), 1e-10);
  row.forward(std::abs(unshuffled.deviation - golden.at("isc_unshuffled").at("inception_score_std").get<double>()), 1e-10);
  EXPECT_GT(std::abs(shuffled.deviation - unshuffled.deviation), 1e-6);  // the shuffle does something
}

TEST(InceptionScore, OneSureClassAnImageGivesTheNumberOfClasses) {
  const auto logits = torch::eye(5).repeat({4, 1}) * 1000;
  InceptionScoreOptions options;
  options.splits = 1;
  EXPECT_NEAR(inception_score(logits, options).mean, 5, 1e-12);  // fp64 rounding
  EXPECT_NEAR(inception_score(torch::zeros({20, 5}), options).mean, 1, 1e-12);
}

TEST(InceptionScore, RefusesFewerImagesThanSplits) {
  EXPECT_THROW(inception_score(torch::zeros({9, 5}), {}), Error);
  EXPECT_THROW(inception_score(torch::zeros({9}), {}), Error);
}

}  // namespace
}  // namespace onestep
