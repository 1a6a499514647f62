#include <fcntl.h>
#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>
#include <utility>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/hdf5_guard.h"
#include "common/hdf5_handle.h"
#include "common/pair_file.h"
#include "common/pair_shard_layout.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr std::array<unsigned char, 8> kMagic{0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};

std::string dimensions_text(const std::vector<hsize_t>& dimensions) {
  return json(dimensions).dump();
}

[[noreturn]] void corrupt(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::kCorrupt, path + ": " + what);
}

// A file descriptor opened for reading, for the length of a scope.
class ReadDescriptor {
 public:
  explicit ReadDescriptor(const std::string& path)
      : value_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (value_ < 0) {
      const bool absent = errno == ENOENT || errno == ENOTDIR;
      throw Error(absent ? ErrorCode::kNotFound : ErrorCode::kIo,
                  path + ": open: " + std::strerror(errno));
    }
  }
  ReadDescriptor(const ReadDescriptor&) = delete;
  ReadDescriptor& operator=(const ReadDescriptor&) = delete;
  ~ReadDescriptor() {
    if (value_ >= 0) ::close(value_);
  }
  [[nodiscard]] int value() const { return value_; }
  int release() { return std::exchange(value_, -1); }

 private:
  int value_;
};

void read_exactly(int descriptor, const std::string& path, std::uint64_t offset, void* data,
                  std::size_t size) {
  char* position = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t got = ::pread(descriptor, position, size, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw Error(ErrorCode::kIo, path + ": pread: " + std::strerror(errno));
    if (got == 0) {
      corrupt(path, "expected " + std::to_string(size) + " more bytes at " +
                        std::to_string(offset) + ", found the end of the file");
    }
    position += got;
    offset += static_cast<std::uint64_t>(got);
    size -= static_cast<std::size_t>(got);
  }
}

// Opens a finished shard with HDF5 and checks everything about it but the data.
class ShardFile {
 public:
  ShardFile(const std::string& path, const PairSetInfo& info, const Shard& shard)
      : path_(path),
        bytes_(file_size(path)),
        access_(make_access()),
        file_(open_file()),
        root_(open(H5Gopen2(file_, "/", H5P_DEFAULT), H5Gclose, "H5Gopen2")) {
    check_attributes(attribute_rules(info, shard));
    check_datasets(dataset_rules(info, shard.count));
  }

  [[nodiscard]] std::uint64_t offset(const std::string& dataset) const {
    return ranges_.at(dataset).first;
  }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  template <typename Result>
  Result call(Result result, const char* name) const {
    return hdf5_check(result, name, path_, ErrorCode::kCorrupt);
  }
  Hdf5Handle open(hid_t id, herr_t (*close)(hid_t), const char* name) const {
    return open_hdf5(id, close, name, path_, ErrorCode::kCorrupt);
  }

  Hdf5Handle make_access() const {
    Hdf5Handle access =
        open_hdf5(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "H5Pcreate", path_, ErrorCode::kInternal);
    // Finished files never change; locks fail on some network file systems.
    hdf5_check(H5Pset_file_locking(access, false, true), "H5Pset_file_locking", path_,
          ErrorCode::kInternal);
    return access;
  }

  Hdf5Handle open_file() const {
    std::array<unsigned char, kMagic.size()> magic{};
    if (bytes_ < magic.size()) {
      corrupt(path_, "expected an HDF5 file, found " + std::to_string(bytes_) + " bytes");
    }
    read_exactly(ReadDescriptor(path_).value(), path_, 0, magic.data(), magic.size());
    if (magic != kMagic) corrupt(path_, "expected an HDF5 file, found another signature");
    check_hdf5_in_child(path_);
    return open(H5Fopen(path_.c_str(), H5F_ACC_RDONLY, access_), H5Fclose, "H5Fopen");
  }

  void check_attributes(const AttributeRules& rules) const {
    std::string extra;
    const int count = call(H5Aget_num_attrs(root_), "H5Aget_num_attrs");
    for (int i = 0; i < count; ++i) {
      const Hdf5Handle attribute =
          open(H5Aopen_by_idx(root_, ".", H5_INDEX_NAME, H5_ITER_INC, static_cast<hsize_t>(i),
                              H5P_DEFAULT, H5P_DEFAULT),
               H5Aclose, "H5Aopen_by_idx");
      const ssize_t size = call(H5Aget_name(attribute, 0, nullptr), "H5Aget_name");
      std::string name(static_cast<std::size_t>(size), '\0');
      call(H5Aget_name(attribute, name.size() + 1, name.data()), "H5Aget_name");
      if (!rules.contains(name)) extra = name;
    }
    // A foreign file first of all lacks the format: the most telling difference is named first.
    check_attribute("format", rules.at("format"));
    check_attribute("format_version", rules.at("format_version"));
    for (const auto& [name, rule] : rules) check_attribute(name, rule);
    if (!extra.empty())
      corrupt(path_, "attribute " + extra + ": expected no such attribute, found one");
  }

  void check_attribute(const std::string& name, const AttributeRule& rule) const {
    if (call(H5Aexists(root_, name.c_str()), "H5Aexists") == 0) {
      corrupt(path_, "attribute " + name + ": expected " + text_of(rule.value) + ", found none");
    }
    const Hdf5Handle attribute = open(H5Aopen(root_, name.c_str(), H5P_DEFAULT), H5Aclose, "H5Aopen");
    const AttributeValue found = read_attribute(name, attribute, rule.value);
    if (found != rule.value) {
      throw Error(rule.code, path_ + ": attribute " + name + ": expected " + text_of(rule.value) +
                                 ", found " + text_of(found));
    }
  }

  AttributeValue read_attribute(const std::string& name, hid_t attribute,
                                const AttributeValue& like) const {
    const Hdf5Handle type = open(H5Aget_type(attribute), H5Tclose, "H5Aget_type");
    const Hdf5Handle space = open(H5Aget_space(attribute), H5Sclose, "H5Aget_space");
    const bool scalar = H5Sget_simple_extent_type(space) == H5S_SCALAR;
    if (std::holds_alternative<std::string>(like)) {
      if (!scalar || H5Tget_class(type) != H5T_STRING ||
          call(H5Tis_variable_str(type), "H5Tis_variable_str") != 0 || H5Tget_size(type) == 0 ||
          H5Tget_size(type) > kMaxAttributeBytes) {
        corrupt(path_,
                "attribute " + name + ": expected a text of fixed length, found another type");
      }
      std::string text(H5Tget_size(type), '\0');
      call(H5Aread(attribute, type, text.data()), "H5Aread");
      return text;
    }
    const bool is_signed = std::holds_alternative<std::int64_t>(like);
    const hid_t expected = is_signed ? H5T_STD_I64LE : H5T_STD_U64LE;
    if (!scalar || call(H5Tequal(type, expected), "H5Tequal") == 0) {
      corrupt(path_, "attribute " + name + ": expected a little-endian " +
                         (is_signed ? "int64" : "uint64") + ", found another type");
    }
    std::uint64_t bits = 0;
    call(H5Aread(attribute, type, &bits), "H5Aread");
    if (is_signed) return static_cast<std::int64_t>(bits);
    return bits;
  }

  static std::string text_of(const AttributeValue& value) {
    if (const auto* text = std::get_if<std::string>(&value)) {
      return json(*text).dump(-1, ' ', true, json::error_handler_t::replace);
    }
    if (const auto* integer = std::get_if<std::int64_t>(&value)) return std::to_string(*integer);
    return std::to_string(std::get<std::uint64_t>(value));
  }

  void check_datasets(const std::map<std::string, DatasetRule>& rules) {
    H5G_info_t group{};
    call(H5Gget_info(root_, &group), "H5Gget_info");
    for (hsize_t i = 0; i < group.nlinks; ++i) {
      const std::string name = link_name(i);
      if (!rules.contains(name))
        corrupt(path_, "\"" + name + "\": expected no such object, found one");
      H5L_info_t link{};
      call(H5Lget_info(root_, name.c_str(), &link, H5P_DEFAULT), "H5Lget_info");
      if (link.type != H5L_TYPE_HARD)
        corrupt(path_, "\"" + name + "\": expected a dataset, found a soft or external link");
    }
    for (const auto& [name, rule] : rules) {
      if (call(H5Lexists(root_, name.c_str(), H5P_DEFAULT), "H5Lexists") == 0) {
        corrupt(path_, "dataset " + name + ": expected " + dimensions_text(rule.dimensions) +
                           ", found none");
      }
      check_dataset(name, rule);
    }
    check_ranges();
  }

  [[nodiscard]] std::string link_name(hsize_t i) const {
    const ssize_t size =
        call(H5Lget_name_by_idx(root_, ".", H5_INDEX_NAME, H5_ITER_INC, i, nullptr, 0, H5P_DEFAULT),
             "H5Lget_name_by_idx");
    std::string name(static_cast<std::size_t>(size), '\0');
    call(H5Lget_name_by_idx(root_, ".", H5_INDEX_NAME, H5_ITER_INC, i, name.data(), name.size() + 1,
                            H5P_DEFAULT),
         "H5Lget_name_by_idx");
    return name;
  }

  void check_dataset(const std::string& name, const DatasetRule& rule) {
    const std::string where = "dataset " + name + ": ";
    const Hdf5Handle object = open(H5Oopen(root_, name.c_str(), H5P_DEFAULT), H5Oclose, "H5Oopen");
    if (H5Iget_type(object) != H5I_DATASET)
      corrupt(path_, where + "expected a dataset, found another object");
    if (call(H5Aget_num_attrs(object), "H5Aget_num_attrs") != 0) {
      corrupt(path_, where + "expected no attributes, found some");
    }
    const Hdf5Handle type = open(H5Dget_type(object), H5Tclose, "H5Dget_type");
    if (call(H5Tequal(type, rule.type), "H5Tequal") == 0) {
      corrupt(path_,
              where + "expected the type and byte order of the format, found " + type_text(type));
    }
    const Hdf5Handle space = open(H5Dget_space(object), H5Sclose, "H5Dget_space");
    if (const auto found = dimensions_of(space); found != rule.dimensions) {
      corrupt(path_, where + "expected shape " + dimensions_text(rule.dimensions) + ", found " +
                         dimensions_text(found));
    }
    check_layout(where, object);
    const haddr_t offset = H5Dget_offset(object);
    if (offset == HADDR_UNDEF)
      corrupt(path_, where + "expected data in the file, found none allocated");
    const std::uint64_t size = rule.dimensions.front() * rule.row_bytes;
    if (H5Dget_storage_size(object) != size || offset > bytes_ || size > bytes_ - offset) {
      corrupt(path_, where + "expected " + std::to_string(size) + " bytes at " +
                         std::to_string(offset) + " within a file of " + std::to_string(bytes_) +
                         ", found another range");
    }
    ranges_[name] = {offset, size};
  }

  void check_layout(const std::string& where, hid_t dataset) const {
    const Hdf5Handle creation = open(H5Dget_create_plist(dataset), H5Pclose, "H5Dget_create_plist");
    if (H5Pget_layout(creation) != H5D_CONTIGUOUS) {
      corrupt(path_,
              where + "expected a contiguous layout, found a chunked, compact or virtual one");
    }
    if (call(H5Pget_nfilters(creation), "H5Pget_nfilters") != 0) {
      corrupt(path_, where + "expected no filters, found some");
    }
    if (call(H5Pget_external_count(creation), "H5Pget_external_count") != 0) {
      corrupt(path_, where + "expected its data in this file, found external files");
    }
  }

  // Two names for one dataset would pass every other check.
  void check_ranges() const {
    for (const auto& [a, range_a] : ranges_) {
      for (const auto& [b, range_b] : ranges_) {
        if (a < b && range_a.first < range_b.first + range_b.second &&
            range_b.first < range_a.first + range_a.second) {
          corrupt(path_, "datasets " + a + " and " + b +
                             ": expected data of their own, found the same bytes");
        }
      }
    }
  }

  [[nodiscard]] std::vector<hsize_t> dimensions_of(hid_t space) const {
    const int rank = call(H5Sget_simple_extent_ndims(space), "H5Sget_simple_extent_ndims");
    std::vector<hsize_t> dimensions(static_cast<std::size_t>(rank));
    call(H5Sget_simple_extent_dims(space, dimensions.data(), nullptr), "H5Sget_simple_extent_dims");
    return dimensions;
  }

  static std::string type_text(hid_t type) {
    static const std::map<H5T_class_t, std::string> names{
        {H5T_INTEGER, "integer"}, {H5T_FLOAT, "floating point"}, {H5T_STRING, "text"}};
    const auto name = names.find(H5Tget_class(type));
    const std::string order =
        H5Tget_order(type) == H5T_ORDER_BE ? ", big-endian" : ", little-endian";
    return std::to_string(8 * H5Tget_size(type)) + "-bit " +
           (name == names.end() ? "of another class" : name->second) + order;
  }

  std::string path_;
  std::uint64_t bytes_;
  Hdf5Handle access_;
  Hdf5Handle file_;
  Hdf5Handle root_;
  std::map<std::string, std::pair<std::uint64_t, std::uint64_t>>
      ranges_;  // dataset -> offset, bytes
};

std::string digest_text(const std::array<std::uint64_t, 2>& digest) {
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), "%016llx%016llx",
                static_cast<unsigned long long>(digest[1]),
                static_cast<unsigned long long>(digest[0]));
  return text.data();
}

void check_index(const std::string& path, const Shard& shard,
                 const std::vector<std::int64_t>& index) {
  for (std::int64_t row = 0; row < shard.count; ++row) {
    const std::int64_t found = index[static_cast<std::size_t>(row)];
    if (found != shard.first + row) {
      corrupt(path, "index: row " + std::to_string(row) + ": expected " +
                        std::to_string(shard.first + row) + ", found " + std::to_string(found));
    }
  }
}

// Reads all data of the shard and compares every block with its digest.
void verify_blocks(const std::string& path, const ShardFile& file, const PairSetInfo& info,
                   const Shard& shard) {
  const ReadDescriptor descriptor(path);
  const auto rules = dataset_rules(info, shard.count);
  const std::int64_t blocks = num_blocks(shard.count);
  std::vector<std::array<std::uint64_t, 2>> expected(static_cast<std::size_t>(blocks) *
                                                     kNumDatasets);
  read_exactly(descriptor.value(), path, file.offset(kDigestsName), expected.data(),
               expected.size() * sizeof(expected.front()));
  std::vector<std::byte> data;
  for (std::size_t i = 0; i < kNumDatasets; ++i) {
    const std::uint64_t row_bytes = rules.at(kDatasetNames[i]).row_bytes;
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t first = block * kPairBlockRows;
      const auto rows = static_cast<std::uint64_t>(std::min(kPairBlockRows, shard.count - first));
      data.resize(rows * row_bytes);
      read_exactly(descriptor.value(), path,
                   file.offset(kDatasetNames[i]) + static_cast<std::uint64_t>(first) * row_bytes,
                   data.data(), data.size());
      const auto found = xxh3_128(data.data(), data.size());
      const auto& wanted = expected[static_cast<std::size_t>(block) * kNumDatasets + i];
      if (found != wanted) {
        corrupt(path, std::string("dataset ") + kDatasetNames[i] + ": block of rows from " +
                          std::to_string(first) + ": digest: expected " + digest_text(wanted) +
                          ", found " + digest_text(found));
      }
    }
  }
  std::vector<std::int64_t> index(static_cast<std::size_t>(shard.count));
  read_exactly(descriptor.value(), path, file.offset("index"), index.data(),
               index.size() * sizeof(index.front()));
  check_index(path, shard, index);
}

}  // namespace

PairShardRecord verify_pair_shard(const std::string& folder, const PairSetInfo& info,
                                  std::int64_t shard_index) {
  const std::string path = folder + "/" + pair_shard_name(shard_index);
  const Shard shard = shard_of(info, shard_index, path);
  const QuietHdf5 quiet;
  const ShardFile file(path, info, shard);
  verify_blocks(path, file, info, shard);
  return {shard_index,      pair_shard_name(shard_index), shard.first, shard.count, file.bytes(),
          sha256_file(path)};
}

PairShardReader::PairShardReader(const std::string& folder, const PairSetInfo& info,
                                 const PairShardRecord& record)
    : path_(folder + "/" + record.file), rows_(record.count), row_elements_(row_elements(info)) {
  const Shard shard = shard_of(info, record.index, path_);
  if (record.first != shard.first || record.count != shard.count) {
    throw Error(ErrorCode::kMismatch,
                path_ + ": expected rows " + std::to_string(shard.first) + " + " +
                    std::to_string(shard.count) + " by the set's plan, found a record of " +
                    std::to_string(record.first) + " + " + std::to_string(record.count));
  }
  if (const auto bytes = file_size(path_); bytes != record.bytes) {
    corrupt(path_, "size: expected " + std::to_string(record.bytes) + " bytes, found " +
                       std::to_string(bytes));
  }
  const QuietHdf5 quiet;
  const ShardFile file(path_, info, shard);
  noise_offset_ = file.offset("noise");
  image_offset_ = file.offset("image");
  ReadDescriptor descriptor(path_);
  labels_.resize(static_cast<std::size_t>(rows_));
  std::vector<std::int64_t> index(labels_.size());
  const std::size_t bytes = labels_.size() * sizeof(std::int64_t);
  read_exactly(descriptor.value(), path_, file.offset("label"), labels_.data(), bytes);
  read_exactly(descriptor.value(), path_, file.offset("index"), index.data(), bytes);
  check_index(path_, shard, index);
  descriptor_ = descriptor.release();
}

PairShardReader::PairShardReader(PairShardReader&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      path_(std::move(other.path_)),
      noise_offset_(other.noise_offset_),
      image_offset_(other.image_offset_),
      rows_(other.rows_),
      row_elements_(other.row_elements_),
      labels_(std::move(other.labels_)) {}

PairShardReader& PairShardReader::operator=(PairShardReader&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(path_, other.path_);
  std::swap(noise_offset_, other.noise_offset_);
  std::swap(image_offset_, other.image_offset_);
  std::swap(rows_, other.rows_);
  std::swap(row_elements_, other.row_elements_);
  std::swap(labels_, other.labels_);
  return *this;
}

PairShardReader::~PairShardReader() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void PairShardReader::read_row(std::int64_t row, std::span<float> noise, std::span<float> image,
                               std::int64_t& label) const {
  if (row < 0 || row >= rows_) {
    throw Error(ErrorCode::kInternal, path_ + ": row: expected one of 0.." +
                                          std::to_string(rows_ - 1) + ", found " +
                                          std::to_string(row));
  }
  const auto elements = static_cast<std::size_t>(row_elements_);
  if (noise.size() != elements || image.size() != elements) {
    throw Error(ErrorCode::kInternal, path_ + ": expected room for " + std::to_string(elements) +
                                          " numbers each, found " + std::to_string(noise.size()) +
                                          " and " + std::to_string(image.size()));
  }
  const std::uint64_t start = static_cast<std::uint64_t>(row) * elements * sizeof(float);
  read_exactly(descriptor_, path_, noise_offset_ + start, noise.data(), noise.size_bytes());
  read_exactly(descriptor_, path_, image_offset_ + start, image.data(), image.size_bytes());
  label = labels_[static_cast<std::size_t>(row)];
}

}  // namespace onestep
