// Classes of pictures from dataset.json, as EDM and StyleGAN keep them. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace onestep {

struct DatasetLabels {
  std::vector<std::int64_t> labels;  // one an image, in the order of `names`; empty: no labels
  std::int64_t num_classes = 0;      // 0: no labels
};

// `text`: {"labels": [["path", class], ...]} with classes 0.. or one-hot lists, or {"labels":
// null}; other keys are ignored, as EDM ignores them. `num_classes`: 0 takes the length of the
// one-hot lists, or the highest class plus one. Every image needs one entry, every entry an image.
// Errors: kCorrupt naming `where` and everything that does not fit.
DatasetLabels parse_dataset_labels(const std::string& text, const std::string& where,
                                   const std::vector<std::string>& names, std::int64_t num_classes);

}  // namespace onestep
