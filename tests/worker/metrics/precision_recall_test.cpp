#include "worker/metrics/precision_recall.h"

#include <gtest/gtest.h>

#include "common/error.h"
#include "support/golden_metrics.h"
#include "support/keyed_features.h"
#include "support/parity.h"

namespace onestep {
namespace {

// torch-fidelity's prc on the same features: shares of whole points, so equal up to the division's fp32 there.
TEST(PrecisionRecall, IsTorchFidelitys) {
  const auto golden = golden_metrics().at("prc");
  const auto points = keyed_features("prc", 570, 12);
  const PrecisionRecall found = precision_recall(points.narrow(0, 0, 260), points.narrow(0, 260, 310) * 0.9 + 0.02);
  ParityRow row({"precision and recall", versions_of(golden_metrics().at("versions"), {"torch-fidelity"}), "260 and 310 x 12 features, k 3",
                 kAbsolute, "none: a metric"});
  row.forward(std::abs(found.precision - golden.at("precision").get<double>()), 1e-6);
  row.forward(std::abs(found.recall - golden.at("recall").get<double>()), 1e-6);
  EXPECT_GT(found.precision, 0.05);
  EXPECT_LT(found.precision, 0.95);
}

TEST(PrecisionRecall, KnownSets) {
  // Real points 0..4 on a line; with k = 1 each ball reaches 1. One generated point far out, one between.
  const auto real = torch::arange(5, torch::kFloat64).unsqueeze(1);
  const auto generated = torch::tensor({2.5, 100.0}, torch::kFloat64).unsqueeze(1);
  const PrecisionRecall found = precision_recall(real, generated, 1);
  EXPECT_EQ(found.precision, 0.5);
  EXPECT_EQ(found.recall, 1.0);  // the ball round 2.5 reaches to 100
  const auto near = torch::tensor({2.0, 2.5}, torch::kFloat64).unsqueeze(1);
  EXPECT_EQ(precision_recall(real, near, 1).recall, 0.4);  // within 0.5 of 2 or 2.5: 2 and 3
}

TEST(PrecisionRecall, BlocksDoNotShow) {
  const auto points = keyed_features("blocks", 2600, 8);
  const auto real = points.narrow(0, 0, 1500), generated = points.narrow(0, 1500, 1100) + 0.02;
  const PrecisionRecall found = precision_recall(real, generated);
  const auto all = [](const torch::Tensor& a, const torch::Tensor& b) {
    return (a.unsqueeze(1) - b.unsqueeze(0)).square().sum(2);
  };
  const auto radii = std::get<0>(all(real, real).kthvalue(4, 1));
  const auto inside = (all(generated, real) <= radii.unsqueeze(0)).any(1).to(torch::kFloat64).mean().item<double>();
  EXPECT_EQ(found.precision, inside);
}

TEST(PrecisionRecall, RefusesSetsThatAreTooSmall) {
  EXPECT_THROW(precision_recall(torch::zeros({3, 2}), torch::zeros({9, 2})), Error);
  EXPECT_THROW(precision_recall(torch::zeros({9, 2}), torch::zeros({9, 3})), Error);
}

}  // namespace
}  // namespace onestep
