#include "worker/metrics/kernel_distance.h"

#include <gtest/gtest.h>

#include "common/error.h"
#include "support/golden_metrics.h"
#include "support/keyed_features.h"
#include "support/parity.h"

namespace onestep {
namespace {

// torch-fidelity's kid on the same features (fp64 there too, as given) and the subsets it draws.
TEST(KernelDistance, IsTorchFidelitys) {
  const auto golden = golden_metrics().at("kid");
  const auto subsets = kernel_subsets(150, 170, 8, 100);
  const KernelDistance distance =
      kernel_distance(keyed_features("kid.a", 150, 48), keyed_features("kid.b", 170, 48, 0.1), subsets);
  // Sums of 10,000 terms near 1, in fp64 and another order.
  ParityRow row({"KID", versions_of(golden_metrics().at("versions"), {"torch-fidelity"}), "150 and 170 x 48 features, 8 subsets of 100",
                 kAbsolute, "none: a metric"});
  row.forward(std::abs(distance.mean - golden.at("kernel_inception_distance_mean").get<double>()), 1e-11);
  row.forward(std::abs(distance.deviation - golden.at("kernel_inception_distance_std").get<double>()), 1e-11);
}

TEST(KernelDistance, MatchesATwinInPlainLoops) {
  const auto x = keyed_draws("x", 5, 3), y = keyed_draws("y", 6, 3);
  const KernelSubset subset{{4, 0, 2}, {5, 1, 3}};
  const auto kernel = [](const torch::Tensor& a, const torch::Tensor& b) {
    return std::pow((a * b).sum().item<double>() / 3 + 1, 3);
  };
  double expected = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::size_t j = 0; j < 3; ++j) {
      if (i != j) {
        expected += (kernel(x[subset.first[i]], x[subset.first[j]]) + kernel(y[subset.second[i]], y[subset.second[j]])) / 6;
      }
      expected -= 2 * kernel(x[subset.first[i]], y[subset.second[j]]) / 9;
    }
  }
  EXPECT_NEAR(kernel_distance(x, y, {subset}).mean, expected, 1e-13);  // fp64 rounding
}

TEST(KernelDistance, RefusesSubsetsThatDoNotFit) {
  const auto x = torch::zeros({10, 3});
  EXPECT_THROW(kernel_subsets(10, 1000, 1, 11), Error);
  EXPECT_THROW(kernel_distance(x, x, {}), Error);
  EXPECT_THROW(kernel_distance(x, x, {{{0, 1}, {0, 10}}}), Error);
  EXPECT_THROW(kernel_distance(x, x, {{{0, 1}, {0}}}), Error);
  EXPECT_THROW(kernel_distance(x, torch::zeros({10, 4}), {{{0, 1}, {0, 1}}}), Error);
}

}  // namespace
}  // namespace onestep
