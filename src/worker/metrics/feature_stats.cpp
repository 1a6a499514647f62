#include "worker/metrics/feature_stats.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <string>

#include "common/error.h"

namespace onestep {

FeatureAccumulator::FeatureAccumulator(std::int64_t num_rows, std::int64_t num_features)
    : num_rows_(num_rows), num_features_(num_features) {
  if (num_rows < 2 || num_features < 1) {
    throw Error(ErrorCode::kMismatch,
                "feature statistics: expected 2 or more rows of 1 or more features, found " +
                    std::to_string(num_rows) + " rows of " + std::to_string(num_features));
  }
}

void FeatureAccumulator::add(std::int64_t first_row, const torch::Tensor& features) {
  if (features.dim() != 2 || features.size(1) != num_features_) {
    throw Error(ErrorCode::kMismatch, "feature statistics: expected [n," +
                                          std::to_string(num_features_) + "], found " +
                                          c10::str(features.sizes()));
  }
  const auto values = features.detach().to(torch::kCPU, torch::kFloat64).contiguous();
  if (!torch::isfinite(values).all().item<bool>()) {
    throw Error(ErrorCode::kCorrupt, "feature statistics: rows from " + std::to_string(first_row) +
                                         ": expected finite features, found NaN or infinity");
  }
  const std::int64_t end = first_row + values.size(0);
  if (first_row < 0 || end > num_rows_) {
    throw Error(ErrorCode::kInternal, "feature statistics: rows " + std::to_string(first_row) +
                                          ".." + std::to_string(end) + ": expected within 0.." +
                                          std::to_string(num_rows_));
  }
  for (std::int64_t row = first_row; row < end;) {
    const std::int64_t block = row / kBlockRows;
    const std::int64_t stop = std::min(end, (block + 1) * kBlockRows);
    OpenBlock& open = open_block(block);
    for (std::int64_t r = row; r < stop; ++r) {
      auto filled = open.filled[static_cast<std::size_t>(r - block * kBlockRows)];
      if (filled) {
        throw Error(ErrorCode::kInternal,
                    "feature statistics: row " + std::to_string(r) + " given twice");
      }
      open.filled[static_cast<std::size_t>(r - block * kBlockRows)] = true;
    }
    open.rows.narrow(0, row - block * kBlockRows, stop - row)
        .copy_(values.narrow(0, row - first_row, stop - row));
    open.missing -= stop - row;
    rows_seen_ += stop - row;
    close_block_if_full(block);
    row = stop;
  }
}

void FeatureAccumulator::merge(FeatureAccumulator other) {
  if (other.num_rows_ != num_rows_ || other.num_features_ != num_features_) {
    throw Error(ErrorCode::kMismatch, "feature statistics: expected another part of " +
                                          std::to_string(num_rows_) + " rows of " +
                                          std::to_string(num_features_) + ", found one of " +
                                          std::to_string(other.num_rows_) + " rows of " +
                                          std::to_string(other.num_features_));
  }
  for (const auto& [block, part] : other.open_) merge_block(block, part);
  for (auto& [node, sums] : other.nodes_) merge_node(node, std::move(sums));
}

void FeatureAccumulator::merge_block(std::int64_t block, const OpenBlock& part) {
  for (std::size_t i = 0; i < part.filled.size(); ++i) {
    const auto place = static_cast<std::int64_t>(i);
    if (part.filled[i]) add(block * kBlockRows + place, part.rows.narrow(0, place, 1));
  }
}

void FeatureAccumulator::merge_node(Node node, Sums sums) {
  const std::int64_t begin = node.second << node.first;
  const std::int64_t end = (node.second + 1) << node.first;
  if (is_summed(begin, end) || open_.lower_bound(begin) != open_.lower_bound(end)) {
    throw Error(ErrorCode::kInternal, "feature statistics: a row of blocks " + std::to_string(begin) +
                                          ".." + std::to_string(end - 1) + " given twice");
  }
  rows_seen_ += std::min(end * kBlockRows, num_rows_) - begin * kBlockRows;
  insert(node, std::move(sums));
}

// A part is 8-byte words: level (-1: an open block), number, 0; then an open block's kBlockRows flags and its rows, or a node's
// first and second sums.
std::string FeatureAccumulator::part(std::size_t number) const {
  std::string text;
  const auto put = [&text](const void* data, std::size_t size) { text.append(static_cast<const char*>(data), size); };
  const auto put_tensor = [&put](const torch::Tensor& tensor) {
    const auto values = tensor.contiguous();
    put(values.const_data_ptr<double>(), values.nbytes());
  };
  if (number < open_.size()) {
    const auto& [block, open] = *std::next(open_.begin(), static_cast<std::ptrdiff_t>(number));
    const std::int64_t head[] = {-1, block, 0};
    put(head, sizeof head);
    for (std::int64_t i = 0; i < kBlockRows; ++i) {
      const std::int64_t filled = i < std::ssize(open.filled) && open.filled[static_cast<std::size_t>(i)] ? 1 : 0;
      put(&filled, sizeof filled);
    }
    put_tensor(open.rows);
  } else {
    const auto& [node, sums] = *std::next(nodes_.begin(), static_cast<std::ptrdiff_t>(number - open_.size()));
    const std::int64_t head[] = {node.first, node.second, 0};
    put(head, sizeof head);
    put_tensor(sums.first);
    put_tensor(sums.second);
  }
  return text;
}

void FeatureAccumulator::merge_part(const std::string& part) {
  const char* cursor = part.data();
  const auto take = [&](void* to, std::size_t size) {
    if (static_cast<std::size_t>(part.data() + part.size() - cursor) < size) {
      throw Error(ErrorCode::kInternal, "feature statistics: a part of " + std::to_string(part.size()) + " bytes: too short");
    }
    std::memcpy(to, cursor, size);
    cursor += size;
  };
  const auto take_tensor = [&](at::IntArrayRef shape) {
    auto tensor = torch::empty(shape, torch::kFloat64);
    take(tensor.data_ptr<double>(), tensor.nbytes());
    return tensor;
  };
  std::int64_t head[3];
  take(head, sizeof head);
  const std::int64_t num_blocks = (num_rows_ + kBlockRows - 1) / kBlockRows;
  const bool is_block = head[0] == -1;
  if (head[0] < -1 || head[0] > 40 || head[1] < 0 || head[1] >= num_blocks || head[2] != 0 ||
      (head[1] << std::max<std::int64_t>(0, head[0])) >= num_blocks) {
    throw Error(ErrorCode::kInternal, "feature statistics: expected a part of " + std::to_string(num_blocks) +
                                          " blocks, found level " + std::to_string(head[0]) + ", number " +
                                          std::to_string(head[1]));
  }
  if (is_block) {
    OpenBlock open;
    std::int64_t flags[kBlockRows];
    take(flags, sizeof flags);
    const std::int64_t rows = std::min(kBlockRows, num_rows_ - head[1] * kBlockRows);
    for (std::int64_t i = 0; i < rows; ++i) open.filled.push_back(flags[i] == 1);
    open.rows = take_tensor({rows, num_features_});
    merge_block(head[1], open);
  } else {
    Sums sums;
    sums.first = take_tensor({num_features_});
    sums.second = take_tensor({num_features_, num_features_});
    merge_node({static_cast<int>(head[0]), head[1]}, std::move(sums));
  }
  if (cursor != part.data() + part.size()) {
    throw Error(ErrorCode::kInternal, "feature statistics: a part of " + std::to_string(part.size()) + " bytes: too long");
  }
}

FeatureStats FeatureAccumulator::finish() const {
  if (rows_seen_ != num_rows_) {
    throw Error(ErrorCode::kInternal, "feature statistics: expected " + std::to_string(num_rows_) +
                                          " rows, found " + std::to_string(rows_seen_));
  }
  // What is left are the subtrees of the number of blocks' binary digits, largest first; added from
  // the small end.
  std::vector<std::pair<std::int64_t, const Sums*>> roots;
  for (const auto& [node, sums] : nodes_) roots.emplace_back(node.second << node.first, &sums);
  std::sort(roots.begin(), roots.end());
  auto first = roots.back().second->first;
  auto second = roots.back().second->second;
  for (auto root = std::next(roots.rbegin()); root != roots.rend(); ++root) {
    first = root->second->first + first;
    second = root->second->second + second;
  }
  FeatureStats stats;
  stats.count = num_rows_;
  stats.mean = first / static_cast<double>(num_rows_);
  stats.covariance =
      (second - torch::outer(first, stats.mean)) / static_cast<double>(num_rows_ - 1);
  // x y and y x round alike, but sum * mean does not: make the two triangles equal again.
  stats.covariance = (stats.covariance + stats.covariance.t()) / 2;
  return stats;
}

bool FeatureAccumulator::is_summed(std::int64_t begin, std::int64_t end) const {
  return std::any_of(nodes_.begin(), nodes_.end(), [&](const auto& entry) {
    const auto [level, number] = entry.first;
    return (number << level) < end && begin < ((number + 1) << level);
  });
}

FeatureAccumulator::OpenBlock& FeatureAccumulator::open_block(std::int64_t block) {
  const auto [entry, is_new] = open_.try_emplace(block);
  if (is_new) {
    if (is_summed(block, block + 1)) {
      open_.erase(entry);
      throw Error(ErrorCode::kInternal,
                  "feature statistics: a row of block " + std::to_string(block) + " given twice");
    }
    const std::int64_t rows = std::min(kBlockRows, num_rows_ - block * kBlockRows);
    entry->second.rows = torch::zeros({rows, num_features_}, torch::kFloat64);
    entry->second.filled.assign(static_cast<std::size_t>(rows), false);
    entry->second.missing = rows;
  }
  return entry->second;
}

void FeatureAccumulator::close_block_if_full(std::int64_t block) {
  const auto entry = open_.find(block);
  if (entry->second.missing > 0) return;
  const auto rows = entry->second.rows;
  open_.erase(entry);
  insert({0, block}, {rows.sum(0), torch::matmul(rows.t(), rows)});
}

void FeatureAccumulator::insert(Node node, Sums sums) {
  const Node sibling{node.first, node.second ^ 1};
  const auto entry = nodes_.find(sibling);
  if (entry == nodes_.end()) {
    nodes_.emplace(node, std::move(sums));
    return;
  }
  // Addition of two numbers commutes: which sibling came first does not matter.
  Sums sum{entry->second.first + sums.first, entry->second.second + sums.second};
  nodes_.erase(entry);
  insert({node.first + 1, node.second >> 1}, std::move(sum));
}

FeatureStats feature_stats(const torch::Tensor& features) {
  if (features.dim() != 2) {
    throw Error(ErrorCode::kMismatch,
                "feature statistics: expected [N,D], found " + c10::str(features.sizes()));
  }
  FeatureAccumulator accumulator(features.size(0), features.size(1));
  accumulator.add(0, features);
  return accumulator.finish();
}

}  // namespace onestep
