#include "worker/metrics/frechet.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include <nlohmann/json.hpp>

#include "common/error.h"
#include "support/golden_metrics.h"
#include "support/keyed_features.h"
#include "worker/metrics/frechet_parity.h"

namespace onestep {
namespace {

torch::Tensor rows(const nlohmann::json& json) {
  std::vector<double> values;
  for (const auto& row : json) {
    for (const auto& value : row) values.push_back(value.get<double>());
  }
  return torch::tensor(values, torch::kFloat64).view({static_cast<std::int64_t>(json.size()), -1});
}

TEST(Frechet, AgreesWithTheGoldenCases) {
  std::ifstream file(ONESTEP_SOURCE_DIR "/tests/golden/frechet.json");
  const auto golden = nlohmann::json::parse(file);
  ASSERT_GE(golden.at("cases").size(), 4u);
  for (const auto& item : golden.at("cases")) {
    const double expected = item.at("frechet").get<double>();
    const double found =
        frechet_distance(feature_stats(rows(item.at("a"))), feature_stats(rows(item.at("b"))));
    // Singular covariances: an eigenvalue of 1e-15 instead of 0 adds its root, some 3e-8 each.
    EXPECT_NEAR(found, expected, 2e-6) << item.at("name");
  }
}

TEST(Frechet, DiagonalGaussiansHaveAFormula) {
  const auto m1 = torch::tensor({1.0, -2.0, 0.5}, torch::kFloat64);
  const auto m2 = torch::tensor({0.0, 1.0, 0.5}, torch::kFloat64);
  const auto v1 = torch::tensor({4.0, 0.25, 1.0}, torch::kFloat64);
  const auto v2 = torch::tensor({1.0, 2.25, 1.0}, torch::kFloat64);
  // |m1 - m2|^2 + sum (s1 - s2)^2
  const double expected = (m1 - m2).square().sum().item<double>() +
                          (v1.sqrt() - v2.sqrt()).square().sum().item<double>();
  EXPECT_NEAR(frechet_distance({10, m1, torch::diag(v1)}, {10, m2, torch::diag(v2)}), expected,
              1e-12);  // fp64 rounding
}

// For positive definite C1 and C2 the cross term is also the sum of the roots of the eigenvalues of
// C1 C2.
TEST(Frechet, AgreesWithTheUnsymmetricForm) {
  torch::manual_seed(1);
  const auto a = feature_stats(
      torch::randn({100, 6}, torch::kFloat64).matmul(torch::randn({6, 6}, torch::kFloat64)));
  const auto b = feature_stats(torch::randn({80, 6}, torch::kFloat64) * 1.5 + 0.3);
  const auto eigenvalues = torch::linalg_eigvals(torch::matmul(a.covariance, b.covariance));
  const double cross = torch::real(eigenvalues).sqrt().sum().item<double>();
  const double expected = (a.mean - b.mean).square().sum().item<double>() +
                          a.covariance.trace().item<double>() +
                          b.covariance.trace().item<double>() - 2 * cross;
  EXPECT_NEAR(frechet_distance(a, b), expected,
              1e-9);  // the unsymmetric eigenvalues are the less exact ones
}

// pytorch-fid's value at full rank; with fewer rows than columns the nuclear norm of A1 A2^T, by singular values, and the formula
// by scipy.linalg.eigh, whose roots of eigenvalues that should be 0 are part of the difference.
TEST(Frechet, IsThePackagesAtAnyRank) {
  const auto document = golden_metrics();
  for (const auto& item : document.at("fid")) {
    const std::string name = "fid." + item.at("name").get<std::string>();
    const std::int64_t columns = item.at("columns");
    const auto a = feature_stats(keyed_features(name + ".a", item.at("rows").at(0), columns));
    const auto b = feature_stats(keyed_features(name + ".b", item.at("rows").at(1), columns, 0.05));
    const double found = frechet_distance(a, b);
    const double exact = item.at("singular_values");
    record_frechet(document.at("versions"), item, found);
    // The count is not in every file of statistics: without it the noise of singular matrices is not cut off.
    EXPECT_NEAR(frechet_distance({0, a.mean, a.covariance}, b), exact, 1e-6 * exact) << name;
    EXPECT_NEAR(frechet_distance({0, a.mean, a.covariance}, {0, b.mean, b.covariance}), exact, 1e-6 * exact) << name;
  }
}

TEST(Frechet, IsZeroToItselfAndSymmetric) {
  torch::manual_seed(2);
  const auto a = feature_stats(torch::randn({200, 8}));
  const auto b = feature_stats(torch::rand({200, 8}));
  EXPECT_NEAR(frechet_distance(a, a), 0, 1e-10);
  EXPECT_NEAR(frechet_distance(a, b), frechet_distance(b, a), 1e-10);
  EXPECT_GT(frechet_distance(a, b), 1);
}

TEST(Frechet, RefusesOtherWidths) {
  const auto a = feature_stats(torch::rand({10, 3}));
  const auto b = feature_stats(torch::rand({10, 4}));
  EXPECT_THROW(frechet_distance(a, b), Error);
}

}  // namespace
}  // namespace onestep
