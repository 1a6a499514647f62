// TensorBoard's event files: TFRecords of Event messages (protocol buffers), written by hand; the format is in docs/formats.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/store.h"

namespace onestep {

// CRC-32C (Castagnoli), as iSCSI has it.
std::uint32_t crc32c(std::string_view bytes);

struct TensorboardPicture {
  std::int64_t iteration = 0;
  double time = 0;          // Unix seconds
  std::string png;
  int width = 0, height = 0;
};

// A whole file: every finite point of every series as a scalar, tagged with its key ("loss_fake", "eval/frechet"), and pictures under
// "samples". A step is an iteration, as the fake score's own phase makes no images; how many there are is the scalar "images".
// `time` is every point's wall time: the database keeps none.
std::string tensorboard_file(const std::vector<MetricSeries>& series, const std::vector<TensorboardPicture>& pictures, double time);

}  // namespace onestep
