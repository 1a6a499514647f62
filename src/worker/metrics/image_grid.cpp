#include "worker/metrics/image_grid.h"

#include <algorithm>
#include <string>
#include <vector>

#include "common/error.h"

namespace onestep {
namespace {

constexpr std::int64_t kBorder = 1;  // pixels round each image, at scale 1
constexpr std::uint8_t kBorderShade = 40;

}  // namespace

Picture make_grid(const torch::Tensor& images, const GridOptions& options) {
  if (images.dim() != 4 || images.size(0) < 1 || (images.size(1) != 1 && images.size(1) != 3) ||
      options.columns < 1 || options.scale < 1) {
    throw Error(
        ErrorCode::kMismatch,
        "image grid: expected images [N,1 or 3,H,W] and columns and scale of 1 or more, found " +
            c10::str(images.sizes()) + ", " + std::to_string(options.columns) + " columns, scale " +
            std::to_string(options.scale));
  }
  // (N, H, W, C) bytes
  const auto bytes = (images.detach().to(torch::kCPU, torch::kFloat32) * 127.5 + 128)
                         .clamp(0, 255)
                         .to(torch::kUInt8)
                         .permute({0, 2, 3, 1})
                         .contiguous();
  const std::int64_t channels = images.size(1), height = images.size(2), width = images.size(3);
  const std::int64_t columns = std::min(options.columns, images.size(0));
  const std::int64_t rows = (images.size(0) + columns - 1) / columns;
  const std::int64_t cell_height = height + 2 * kBorder, cell_width = width + 2 * kBorder;

  Picture picture;
  picture.width = columns * cell_width * options.scale;
  picture.height = rows * cell_height * options.scale;
  picture.rgb.assign(static_cast<std::size_t>(picture.width * picture.height * 3), kBorderShade);
  const auto* source = bytes.data_ptr<std::uint8_t>();
  for (std::int64_t y = 0; y < picture.height; ++y) {
    for (std::int64_t x = 0; x < picture.width; ++x) {
      const std::int64_t grid_y = y / options.scale, grid_x = x / options.scale;
      const std::int64_t image = grid_y / cell_height * columns + grid_x / cell_width;
      const std::int64_t row = grid_y % cell_height - kBorder,
                         column = grid_x % cell_width - kBorder;
      if (image >= images.size(0) || row < 0 || row >= height || column < 0 || column >= width)
        continue;
      const auto* pixel = source + ((image * height + row) * width + column) * channels;
      auto* target = picture.rgb.data() + (y * picture.width + x) * 3;
      for (std::int64_t c = 0; c < 3; ++c) target[c] = pixel[channels == 3 ? c : 0];
    }
  }
  return picture;
}

torch::Tensor rows_by_class(const torch::Tensor& labels, std::int64_t num_classes,
                            std::int64_t per_class) {
  std::vector<torch::Tensor> rows;
  for (std::int64_t c = 0; c < num_classes; ++c) {
    const auto members = (labels == c).nonzero().flatten();
    if (members.size(0) < per_class) {
      throw Error(ErrorCode::kMismatch, "image grid: class " + std::to_string(c) + ": expected " +
                                            std::to_string(per_class) + " images, found " +
                                            std::to_string(members.size(0)));
    }
    rows.push_back(members.narrow(0, 0, per_class));
  }
  return torch::cat(rows);
}

}  // namespace onestep
