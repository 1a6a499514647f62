#include "worker/data/pair_reader.h"

#include <span>
#include <string>
#include <utility>

#include "common/error.h"
#include "common/shard_plan.h"
#include "worker/data/global_order.h"

namespace onestep {

PairSet::PairSet(std::string folder, const std::string& teacher_sha256)
    : folder_(std::move(folder)),
      manifest_(read_pair_manifest(folder_)),
      digest_(pair_set_digest(folder_)) {
  const PairSetInfo& set = manifest_.info;
  if (set.teacher_sha256 != teacher_sha256) {
    throw Error(ErrorCode::kMismatch, folder_ + ": pairs of another teacher: expected those of " +
                                          teacher_sha256 + ", found those of " +
                                          set.teacher_sha256);
  }
  const auto plan = plan_shards(set.count, set.rows_per_shard, 1);
  if (manifest_.shards.size() != plan.size()) {
    throw Error(ErrorCode::kCorrupt, folder_ + ": manifest: expected " +
                                         std::to_string(plan.size()) + " shards, found " +
                                         std::to_string(manifest_.shards.size()));
  }
  shards_.reserve(plan.size());
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const PairShardRecord& record = manifest_.shards[i];
    if (record.index != plan[i].index || record.first != plan[i].first ||
        record.count != plan[i].count) {
      throw Error(ErrorCode::kCorrupt, folder_ + ": manifest, shard " + std::to_string(i) +
                                           ": expected rows " + std::to_string(plan[i].first) +
                                           " + " + std::to_string(plan[i].count) + ", found rows " +
                                           std::to_string(record.first) + " + " +
                                           std::to_string(record.count));
    }
    shards_.emplace_back(folder_, set, record);
  }
}

void PairSet::verify(int rank, int ranks) const {
  for (const Shard& shard :
       plan_shards(manifest_.info.count, manifest_.info.rows_per_shard, ranks)) {
    if (shard.rank != rank) continue;
    const PairShardRecord& expected = manifest_.shards[static_cast<std::size_t>(shard.index)];
    const PairShardRecord found = verify_pair_shard(folder_, manifest_.info, shard.index);
    if (found.sha256 != expected.sha256 || found.bytes != expected.bytes) {
      throw Error(ErrorCode::kCorrupt,
                  folder_ + "/" + expected.file + ": expected " + std::to_string(expected.bytes) +
                      " bytes of sha256 " + expected.sha256 + " as the manifest says, found " +
                      std::to_string(found.bytes) + " bytes of sha256 " + found.sha256);
    }
  }
}

PairBatch PairSet::read(const std::vector<std::int64_t>& indices) const {
  const PairSetInfo& set = manifest_.info;
  const auto count = static_cast<std::int64_t>(indices.size());
  const auto row_elements = static_cast<std::size_t>(set.channels * set.height * set.width);
  PairBatch batch;
  batch.noise = torch::empty({count, set.channels, set.height, set.width});
  batch.image = torch::empty_like(batch.noise);
  batch.label = torch::empty({count}, torch::kInt64);
  batch.index = torch::empty({count}, torch::kInt64);
  auto* noise = batch.noise.data_ptr<float>();
  auto* image = batch.image.data_ptr<float>();
  auto* label = batch.label.data_ptr<std::int64_t>();
  auto* index = batch.index.data_ptr<std::int64_t>();
  for (std::size_t i = 0; i < indices.size(); ++i) {
    if (indices[i] < 0 || indices[i] >= set.count) {
      throw Error(ErrorCode::kInternal, folder_ + ": row " + std::to_string(indices[i]) +
                                            ": expected 0.." + std::to_string(set.count - 1));
    }
    const auto shard = static_cast<std::size_t>(indices[i] / set.rows_per_shard);
    shards_[shard].read_row(indices[i] % set.rows_per_shard,
                            std::span<float>(noise + i * row_elements, row_elements),
                            std::span<float>(image + i * row_elements, row_elements), label[i]);
    index[i] = indices[i];
  }
  return batch;
}

PairReader::PairReader(const PairSet& set, const PairSlice& slice) {
  const std::int64_t rows = slice.max_pairs == 0 ? set.size() : slice.max_pairs;
  if (rows < 1 || rows > set.size()) {
    throw Error(ErrorCode::kConfig, "max_pairs: expected at most the " +
                                        std::to_string(set.size()) + " pairs of the set, found " +
                                        std::to_string(rows));
  }
  if (slice.global_count < 1 || slice.offset < 0 || slice.count < 1 || slice.first_position < 0 ||
      slice.offset + slice.count > slice.global_count) {
    throw Error(ErrorCode::kConfig, "pairs of a rank: expected 1 or more within the " +
                                        std::to_string(slice.global_count) +
                                        " of an iteration, found " + std::to_string(slice.count) +
                                        " from " + std::to_string(slice.offset));
  }
  prefetcher_ =
      std::make_unique<Prefetcher<PairBatch>>([&set, slice, rows](std::int64_t iteration) {
        const std::int64_t position =
            slice.first_position + iteration * slice.global_count + slice.offset;
        std::vector<std::int64_t> indices(static_cast<std::size_t>(slice.count));
        for (std::int64_t i = 0; i < slice.count; ++i) {
          indices[static_cast<std::size_t>(i)] = ordered_index(slice.seed, rows, position + i);
        }
        PairBatch batch = set.read(indices);
        batch.position = position;
        return batch;
      });
}

}  // namespace onestep
