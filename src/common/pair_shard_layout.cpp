#include "common/pair_shard_layout.h"

#include <cstdio>
#include <utility>

namespace onestep {
namespace {

constexpr const char* kShardFormat = "onestep-pairs";

}  // namespace

std::string pair_shard_name(std::int64_t shard_index) {
  std::array<char, 48> text{};
  std::snprintf(text.data(), text.size(), "pairs-%05lld.h5", static_cast<long long>(shard_index));
  return text.data();
}

AttributeRules attribute_rules(const PairSetInfo& info, const Shard& shard) {
  AttributeRules rules;
  const auto add = [&](const char* name, AttributeValue value,
                       ErrorCode code = ErrorCode::kMismatch) {
    rules.emplace(name, AttributeRule{std::move(value), code});
  };
  add("format", std::string(kShardFormat), ErrorCode::kCorrupt);
  add("format_version", std::int64_t{PairSetInfo::kVersion}, ErrorCode::kCorrupt);
  add("block_rows", kPairBlockRows, ErrorCode::kCorrupt);
  add("teacher_sha256", info.teacher_sha256);
  add("sampler", info.sampler);
  add("steps", std::int64_t{info.steps});
  add("seed", info.seed);
  add("channels", info.channels);
  add("height", info.height);
  add("width", info.width);
  add("count", info.count);
  add("rows_per_shard", info.rows_per_shard);
  if (!info.prompts_sha256.empty()) add("prompts_sha256", info.prompts_sha256);
  add("shard_index", shard.index);
  add("shard_first", shard.first);
  add("shard_count", shard.count);
  return rules;
}

std::int64_t row_elements(const PairSetInfo& info) {
  return info.channels * info.height * info.width;
}
std::int64_t num_blocks(std::int64_t rows) { return (rows + kPairBlockRows - 1) / kPairBlockRows; }

std::map<std::string, DatasetRule> dataset_rules(const PairSetInfo& info, std::int64_t rows) {
  const auto size = [](std::int64_t value) { return static_cast<hsize_t>(value); };
  const std::vector<hsize_t> pictures{size(rows), size(info.channels), size(info.height),
                                      size(info.width)};
  const std::uint64_t picture_bytes =
      static_cast<std::uint64_t>(row_elements(info)) * sizeof(float);
  return {{"noise", {H5T_IEEE_F32LE, pictures, picture_bytes}},
          {"image", {H5T_IEEE_F32LE, pictures, picture_bytes}},
          {"label", {H5T_STD_I64LE, {size(rows)}, sizeof(std::int64_t)}},
          {"index", {H5T_STD_I64LE, {size(rows)}, sizeof(std::int64_t)}},
          {kDigestsName,
           {H5T_STD_U64LE,
            {size(num_blocks(rows)), kNumDatasets, 2},
            kNumDatasets * 2 * sizeof(std::uint64_t)}}};
}

Shard shard_of(const PairSetInfo& info, std::int64_t shard_index, const std::string& where) {
  if (info.channels < 1 || info.height < 1 || info.width < 1) {
    throw Error(ErrorCode::kConfig,
                where + ": pair set: expected channels, height and width >= 1, found " +
                    std::to_string(info.channels) + " x " + std::to_string(info.height) + " x " +
                    std::to_string(info.width));
  }
  const auto shards = plan_shards(info.count, info.rows_per_shard, 1);
  if (shard_index < 0 || shard_index >= static_cast<std::int64_t>(shards.size())) {
    throw Error(ErrorCode::kNotFound, where + ": shard: expected one of 0.." +
                                          std::to_string(shards.size() - 1) + ", found " +
                                          std::to_string(shard_index));
  }
  return shards[static_cast<std::size_t>(shard_index)];
}

}  // namespace onestep
