#include "worker/optim/clip.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "common/error.h"

namespace onestep {
namespace {

std::vector<float> random_values(std::size_t count) {
  std::mt19937 generator(5);
  std::normal_distribution<float> normal(0, 100);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

TEST(SumOfSquares, AgreesWithLongDouble) {
  for (const std::size_t count : {0, 1, 15, 1023, 1024, 1025, 100'000}) {
    const auto values = random_values(count);
    long double expected = 0;
    for (const float value : values) expected += static_cast<long double>(value) * value;
    // A square of a float is exact in fp64; 1e5 additions of like terms lose at most about 1e5 * 2^-53.
    EXPECT_NEAR(sum_of_squares(values), static_cast<double>(expected), static_cast<double>(expected) * 1e-11) << count;
  }
}

TEST(SumOfSquares, OfAPieceDoesNotDependOnWhereItLies) {
  const auto values = random_values(4096);
  std::vector<float> shifted(4096 + 3);
  std::copy(values.begin(), values.end(), shifted.begin() + 3);
  EXPECT_EQ(sum_of_squares(values), sum_of_squares(std::span(shifted).subspan(3)));
}

TEST(LeafSquareSums, OfPiecesAreThoseOfTheWhole) {
  const auto values = random_values(8 * 2048);
  const auto whole = leaf_square_sums(values, 8);
  for (std::size_t piece = 0; piece < 4; ++piece) {
    const auto part = leaf_square_sums(std::span(values).subspan(piece * 4096, 4096), 2);
    EXPECT_EQ(part[0], whole[2 * piece]);
    EXPECT_EQ(part[1], whole[2 * piece + 1]);
  }
  EXPECT_THROW(leaf_square_sums(values, 3), Error);
}

TEST(ClipScale, IsThatOfPyTorch) {
  EXPECT_EQ(clip_scale(0.5, 1.0), 1.0);
  EXPECT_DOUBLE_EQ(clip_scale(4.0, 1.0), 1.0 / (4.0 + 1e-6));
  EXPECT_EQ(clip_scale(0.0, 1.0), 1.0);
  EXPECT_EQ(clip_scale(1e9, 0.0), 1.0);  // off
}

}  // namespace
}  // namespace onestep
