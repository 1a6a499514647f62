#include "worker/data/image_dataset.h"

#include <algorithm>
#include <vector>

#include "common/error.h"
#include "common/image_file.h"

namespace onestep {
namespace {

constexpr std::int64_t kRowsAtOnce = 256;  // keeps what lies between bytes and floats small

// [N,C,H,W] bytes -> [N,C,side,side] in [-1,1]: the mean of each box, computed from the exact
// integer sum.
torch::Tensor box_mean(const torch::Tensor& bytes, std::int64_t side) {
  const std::int64_t box = bytes.size(2) / side;
  torch::Tensor images = torch::empty({bytes.size(0), bytes.size(1), side, side});
  for (std::int64_t first = 0; first < bytes.size(0); first += kRowsAtOnce) {
    const auto rows = bytes.narrow(0, first, std::min(kRowsAtOnce, bytes.size(0) - first));
    const auto sums = rows.to(torch::kInt32)
                          .view({rows.size(0), rows.size(1), side, box, side, box})
                          .sum({3, 5}, /*keepdim=*/false, torch::kInt64);
    images.narrow(0, first, rows.size(0)).copy_(sums.to(torch::kFloat64) / static_cast<double>(box * box) / 127.5 - 1);
  }
  return images;
}

}  // namespace

ImageDataset::ImageDataset(const DatasetSpec& spec) {
  const ImageFile file(spec.path);
  const ImageFileInfo& info = file.info();
  num_classes_ = info.num_classes;
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(info.count * info.row_bytes()));
  file.read_images(0, bytes);
  digest_ = file.check_digest(bytes);
  const std::vector<std::int64_t> labels = file.read_labels();
  const std::int64_t side = spec.resolution == 0 ? info.height : spec.resolution;
  if (info.height != info.width || side < 1 || info.height % side != 0) {
    throw Error(ErrorCode::kMismatch,
                spec.path +
                    ": resolution: expected a divisor of the side of square images, found " +
                    std::to_string(side) + " for images of " + std::to_string(info.height) + "x" +
                    std::to_string(info.width));
  }
  images_ = box_mean(
      torch::from_blob(bytes.data(), {info.count, info.channels, info.height, info.width}, torch::kUInt8), side);
  labels_ = torch::zeros({info.count}, torch::kInt64);
  std::copy(labels.begin(), labels.end(), labels_.data_ptr<std::int64_t>());
}

}  // namespace onestep
