#include "worker/data/ordered_images.h"

#include <vector>

#include "worker/data/global_order.h"

namespace onestep {

LabelledImages ordered_images(const LabelledImages& all, std::uint64_t seed, RandomStream stream, std::int64_t position,
                              std::int64_t count) {
  std::vector<std::int64_t> rows;
  for (std::int64_t i = 0; i < count; ++i) rows.push_back(ordered_index(seed, all.images.size(0), position + i, stream));
  const auto index = torch::tensor(rows);
  return {all.images.index_select(0, index), all.labels.index_select(0, index)};
}

}  // namespace onestep
