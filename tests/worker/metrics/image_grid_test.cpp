#include "worker/metrics/image_grid.h"

#include <gtest/gtest.h>

#include "common/error.h"

namespace onestep {
namespace {

std::vector<int> pixel(const Picture& picture, std::int64_t x, std::int64_t y) {
  const auto* rgb = picture.rgb.data() + (y * picture.width + x) * 3;
  return {rgb[0], rgb[1], rgb[2]};
}

TEST(ImageGrid, LaysImagesRowByRow) {
  // Three 2x1 images (H 2, W 1) in two columns; cells are 4x3 with their borders.
  const auto images = torch::tensor({-1.0f, 1.0f, 0.0f, 0.5f, -3.0f, 3.0f}).view({3, 1, 2, 1});
  const auto grid = make_grid(images, {.columns = 2, .scale = 1});
  EXPECT_EQ(grid.width, 6);
  EXPECT_EQ(grid.height, 8);
  ASSERT_EQ(grid.rgb.size(), 6u * 8u * 3u);
  const std::vector<int> border(3, 40);
  EXPECT_EQ(pixel(grid, 0, 0), border);
  EXPECT_EQ(pixel(grid, 1, 1), std::vector<int>(3, 0));    // 127.5 * -1 + 128 = .5
  EXPECT_EQ(pixel(grid, 1, 2), std::vector<int>(3, 255));  // 255.5 clipped
  EXPECT_EQ(pixel(grid, 4, 1), std::vector<int>(3, 128));
  EXPECT_EQ(pixel(grid, 4, 2), std::vector<int>(3, 191));  // 63.75 + 128
  EXPECT_EQ(pixel(grid, 1, 5), std::vector<int>(3, 0));    // clamped
  EXPECT_EQ(pixel(grid, 1, 6), std::vector<int>(3, 255));
  EXPECT_EQ(pixel(grid, 4, 5), border);  // no fourth image
}

TEST(ImageGrid, ScalesByWholePixels) {
  torch::manual_seed(5);
  const auto images = torch::rand({4, 3, 3, 2}) * 2 - 1;
  const auto small = make_grid(images, {.columns = 3, .scale = 1});
  const auto large = make_grid(images, {.columns = 3, .scale = 3});
  ASSERT_EQ(large.width, 3 * small.width);
  ASSERT_EQ(large.height, 3 * small.height);
  for (std::int64_t y = 0; y < large.height; ++y) {
    for (std::int64_t x = 0; x < large.width; ++x)
      ASSERT_EQ(pixel(large, x, y), pixel(small, x / 3, y / 3));
  }
  // Colours stay apart.
  const auto first = images[0].mul(127.5).add(128).to(torch::kUInt8);
  EXPECT_EQ(pixel(small, 1, 1),
            (std::vector<int>{first[0][0][0].item<int>(), first[1][0][0].item<int>(),
                              first[2][0][0].item<int>()}));
}

TEST(ImageGrid, RefusesWhatIsNoImage) {
  EXPECT_THROW(make_grid(torch::zeros({2, 2, 4, 4}), {}), Error);
  EXPECT_THROW(make_grid(torch::zeros({1, 4, 4}), {}), Error);
  EXPECT_THROW(make_grid(torch::zeros({1, 1, 4, 4}), {.columns = 0, .scale = 1}), Error);
}

TEST(ImageGrid, RowsByClassTakesTheFirstOfEach) {
  const auto labels = torch::tensor({2, 0, 1, 1, 0, 2, 0, 1}, torch::kInt64);
  EXPECT_TRUE(
      torch::equal(rows_by_class(labels, 3, 2), torch::tensor({1, 4, 2, 3, 0, 5}, torch::kInt64)));
  EXPECT_THROW(rows_by_class(labels, 3, 3), Error);
}

}  // namespace
}  // namespace onestep
