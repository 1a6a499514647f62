// What a shard of a pair set holds, by name, type and shape: the writer and the readers share it.
#pragma once

#include <hdf5.h>

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "common/error.h"
#include "common/pair_file.h"
#include "common/shard_plan.h"

namespace onestep {

constexpr const char* kDigestsName = "block_digests";
constexpr std::size_t kNumDatasets = 4;
constexpr std::array<const char*, kNumDatasets> kDatasetNames{"noise", "image", "label", "index"};
constexpr std::size_t kMaxAttributeBytes = 32768;  // HDF5 keeps at most 64 KB in an object header

using AttributeValue = std::variant<std::string, std::int64_t, std::uint64_t>;
struct AttributeRule {
  AttributeValue value;
  ErrorCode code;  // of a difference: kCorrupt for another format, kMismatch for another set
};
using AttributeRules = std::map<std::string, AttributeRule>;

// The one list of attributes: the writer writes it, the readers compare with it.
AttributeRules attribute_rules(const PairSetInfo& info, const Shard& shard);

struct DatasetRule {
  hid_t type;  // in the file
  std::vector<hsize_t> dimensions;
  std::uint64_t row_bytes;  // bytes of one row: the first dimension counts rows
};

std::int64_t row_elements(const PairSetInfo& info);
std::int64_t num_blocks(std::int64_t rows);
// The four datasets in the order of kDatasetNames, then the digests.
std::map<std::string, DatasetRule> dataset_rules(const PairSetInfo& info, std::int64_t rows);
// The shard's place in the set. Errors: kConfig for an impossible set, kNotFound for a number beyond its shards.
Shard shard_of(const PairSetInfo& info, std::int64_t shard_index, const std::string& where);

}  // namespace onestep
