#include "worker/data/ordered_images.h"

#include <vector>

#include "worker/data/global_order.h"

namespace onestep {

OrderedImages ordered_images(const ImageDataset& dataset, std::uint64_t seed, RandomStream stream, std::int64_t position,
                             std::int64_t count) {
  std::vector<std::int64_t> rows;
  for (std::int64_t i = 0; i < count; ++i) rows.push_back(ordered_index(seed, dataset.size(), position + i, stream));
  const auto index = torch::tensor(rows);
  return {dataset.images().index_select(0, index), dataset.labels().index_select(0, index)};
}

}  // namespace onestep
