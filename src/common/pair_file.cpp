#include "common/pair_file.h"

#include <fcntl.h>
#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>
#include <variant>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/shard_plan.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr const char* kShardFormat = "onestep-pairs";
constexpr const char* kDigestsName = "block_digests";
constexpr std::size_t kNumDatasets = 4;
constexpr std::array<const char*, kNumDatasets> kDatasetNames{"noise", "image", "label", "index"};
constexpr std::array<unsigned char, 8> kMagic{0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
constexpr std::size_t kMaxAttributeBytes = 32768;  // HDF5 keeps at most 64 KB in an object header

// --- HDF5 handles and errors ---

// An HDF5 identifier for the length of a scope.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  Handle& operator=(Handle&&) = delete;
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  operator hid_t() const { return id_; }  // NOLINT: passed to the C interface everywhere
  herr_t close_now() { return close_(std::exchange(id_, -1)); }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

// A damaged file that the library refused can leave it with objects that its exit handler fails to
// close, loudly. All files are closed by their handles, so nothing needs that handler. Takes effect
// only before the library's first call.
[[maybe_unused]] const bool kNoExitHandler = H5dont_atexit() >= 0;

// Keeps HDF5 from printing its error stack while an object of this class lives in the thread.
class QuietHdf5 {
 public:
  QuietHdf5() {
    H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  }
  QuietHdf5(const QuietHdf5&) = delete;
  QuietHdf5& operator=(const QuietHdf5&) = delete;
  ~QuietHdf5() { H5Eset_auto2(H5E_DEFAULT, function_, data_); }

 private:
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

// The innermost message of HDF5's error stack.
std::string hdf5_reason() {
  std::string reason;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned level, const H5E_error2_t* error, void* data) -> herr_t {
        if (level == 0 && error->desc != nullptr) *static_cast<std::string*>(data) = error->desc;
        return 0;
      },
      &reason);
  return reason.empty() ? "no reason given" : reason;
}

// Every call of the HDF5 library goes through one of these two; `code` is kCorrupt when reading,
// kInternal when writing.
template <typename Result>
Result check(Result result, const char* call, const std::string& path, ErrorCode code) {
  if (result < 0) throw Error(code, path + ": " + call + ": " + hdf5_reason());
  return result;
}

Handle open_handle(hid_t id, herr_t (*close)(hid_t), const char* call, const std::string& path,
                   ErrorCode code) {
  return {check(id, call, path, code), close};
}

// --- What a shard holds ---

using AttributeValue = std::variant<std::string, std::int64_t, std::uint64_t>;
struct AttributeRule {
  AttributeValue value;
  ErrorCode code;  // of a difference: kCorrupt for another format, kMismatch for another set
};
using AttributeRules = std::map<std::string, AttributeRule>;

// The one list of attributes: the writer writes it, the readers compare with it.
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
  add("shard_index", shard.index);
  add("shard_first", shard.first);
  add("shard_count", shard.count);
  return rules;
}

struct DatasetRule {
  hid_t type;  // in the file
  std::vector<hsize_t> dimensions;
  std::uint64_t row_bytes;  // bytes of one row: the first dimension counts rows
};

std::int64_t row_elements(const PairSetInfo& info) {
  return info.channels * info.height * info.width;
}
std::int64_t num_blocks(std::int64_t rows) { return (rows + kPairBlockRows - 1) / kPairBlockRows; }

// The four datasets in the order of kDatasetNames, then the digests.
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

std::string dimensions_text(const std::vector<hsize_t>& dimensions) {
  return json(dimensions).dump();
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

// Digests of one dataset's blocks, one after another.
std::vector<std::array<std::uint64_t, 2>> digest_blocks(const std::byte* data, std::int64_t rows,
                                                        std::uint64_t row_bytes) {
  std::vector<std::array<std::uint64_t, 2>> digests;
  for (std::int64_t first = 0; first < rows; first += kPairBlockRows) {
    const auto count = static_cast<std::uint64_t>(std::min(kPairBlockRows, rows - first));
    digests.push_back(
        xxh3_128(data + static_cast<std::uint64_t>(first) * row_bytes, count * row_bytes));
  }
  return digests;
}

// --- Writing ---

void check_rows(const PairSetInfo& info, const Shard& shard, const PairRows& rows,
                const std::string& path) {
  const auto expect = [&](const char* name, std::size_t found, std::int64_t expected) {
    if (found != static_cast<std::size_t>(expected)) {
      throw Error(ErrorCode::kInternal, path + ": " + name + ": expected " +
                                            std::to_string(expected) +
                                            " elements to write, found " + std::to_string(found));
    }
  };
  expect("noise", rows.noise.size(), shard.count * row_elements(info));
  expect("image", rows.image.size(), shard.count * row_elements(info));
  expect("label", rows.label.size(), shard.count);
  expect("index", rows.index.size(), shard.count);
  for (std::int64_t row = 0; row < shard.count; ++row) {
    const std::int64_t found = rows.index[static_cast<std::size_t>(row)];
    if (found != shard.first + row) {
      throw Error(ErrorCode::kInternal, path + ": index: row " + std::to_string(row) +
                                            ": expected " + std::to_string(shard.first + row) +
                                            ", found " + std::to_string(found));
    }
  }
}

// Memory that HDF5's core driver builds a file in, kept when the driver closes the file.
// (H5Fget_file_image() is no way to it: it clears the superblock's open-for-writing flag and leaves
// the checksum that covers the flag.)
class FileMemory {
 public:
  FileMemory() = default;
  FileMemory(const FileMemory&) = delete;
  FileMemory& operator=(const FileMemory&) = delete;
  ~FileMemory() { std::free(closed_); }

  // The object must outlive every file opened with these.
  H5FD_file_image_callbacks_t callbacks() {
    return {[](size_t size, H5FD_file_image_op_t, void*) { return std::malloc(size); },
            [](void* to, const void* from, size_t size, H5FD_file_image_op_t, void*) {
              return std::memcpy(to, from, size);
            },
            [](void* memory, size_t size, H5FD_file_image_op_t, void*) {
              return std::realloc(memory, size);
            },
            [](void* memory, H5FD_file_image_op_t operation, void* self) -> herr_t {
              if (operation == H5FD_FILE_IMAGE_OP_FILE_CLOSE) {
                std::free(std::exchange(static_cast<FileMemory*>(self)->closed_, memory));
              } else {
                std::free(memory);
              }
              return 0;
            },
            [](void* self) { return self; },
            [](void*) -> herr_t { return 0; },
            this};
  }

  // After H5Fclose: the bytes up to the end of the file that its superblock names.
  [[nodiscard]] std::span<const std::byte> bytes(std::size_t allocated,
                                                 const std::string& path) const {
    constexpr std::size_t kEndAddressAt = 28;  // version 2, 8-byte addresses
    std::uint64_t end = 0;
    if (closed_ != nullptr && allocated >= kEndAddressAt + sizeof(end)) {
      std::memcpy(&end, static_cast<const char*>(closed_) + kEndAddressAt, sizeof(end));
    }
    if (end == 0 || end > allocated) {
      throw Error(ErrorCode::kInternal, path + ": HDF5: expected a file of 1.." +
                                            std::to_string(allocated) + " bytes in memory, found " +
                                            std::to_string(end));
    }
    return {static_cast<const std::byte*>(closed_), end};
  }

 private:
  void* closed_ = nullptr;
};

// Writes into an HDF5 file that exists in memory only, and hands out its bytes.
class ShardImage {
 public:
  explicit ShardImage(const std::string& path)
      : path_(path), access_(make_access()), file_(make_file()) {}

  void write_attribute(const std::string& name, const AttributeValue& value) {
    const Handle space = open(H5Screate(H5S_SCALAR), H5Sclose, "H5Screate");
    if (const auto* text = std::get_if<std::string>(&value)) {
      if (text->empty() || text->size() > kMaxAttributeBytes) {
        throw Error(ErrorCode::kInternal, path_ + ": attribute " + name + ": expected 1.." +
                                              std::to_string(kMaxAttributeBytes) +
                                              " bytes, found " + std::to_string(text->size()));
      }
      const Handle type = open(H5Tcopy(H5T_C_S1), H5Tclose, "H5Tcopy");
      call(H5Tset_size(type, text->size()), "H5Tset_size");
      call(H5Tset_strpad(type, H5T_STR_NULLPAD), "H5Tset_strpad");
      call(H5Tset_cset(type, H5T_CSET_UTF8), "H5Tset_cset");
      write_attribute(name, type, type, space, text->data());
    } else if (const auto* integer = std::get_if<std::int64_t>(&value)) {
      write_attribute(name, H5T_STD_I64LE, H5T_NATIVE_INT64, space, integer);
    } else {
      write_attribute(name, H5T_STD_U64LE, H5T_NATIVE_UINT64, space,
                      &std::get<std::uint64_t>(value));
    }
  }

  // `data` has the rule's own type: the machine is little-endian, as CMake's target is.
  void write_dataset(const std::string& name, const DatasetRule& rule, const void* data) {
    const Handle space = open(
        H5Screate_simple(static_cast<int>(rule.dimensions.size()), rule.dimensions.data(), nullptr),
        H5Sclose, "H5Screate_simple");
    const Handle creation = open(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "H5Pcreate");
    call(H5Pset_layout(creation, H5D_CONTIGUOUS), "H5Pset_layout");
    call(H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY), "H5Pset_alloc_time");
    call(H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER), "H5Pset_fill_time");
    call(H5Pset_obj_track_times(creation, false), "H5Pset_obj_track_times");
    const Handle dataset =
        open(H5Dcreate2(file_, name.c_str(), rule.type, space, H5P_DEFAULT, creation, H5P_DEFAULT),
             H5Dclose, "H5Dcreate2");
    call(H5Dwrite(dataset, rule.type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), "H5Dwrite");
  }

  // Closes the file; the bytes live as long as the object.
  std::span<const std::byte> finish() {
    call(H5Fflush(file_, H5F_SCOPE_GLOBAL), "H5Fflush");
    const ssize_t allocated = check(H5Fget_file_image(file_, nullptr, 0), "H5Fget_file_image",
                                    path_, ErrorCode::kInternal);
    call(file_.close_now(), "H5Fclose");
    return memory_.bytes(static_cast<std::size_t>(allocated), path_);
  }

 private:
  static constexpr std::size_t kGrowBytes = std::size_t{1} << 20;

  void call(herr_t result, const char* name) const {
    check(result, name, path_, ErrorCode::kInternal);
  }
  Handle open(hid_t id, herr_t (*close)(hid_t), const char* name) const {
    return open_handle(id, close, name, path_, ErrorCode::kInternal);
  }

  Handle make_access() {
    Handle access = open(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "H5Pcreate");
    call(H5Pset_fapl_core(access, kGrowBytes, false), "H5Pset_fapl_core");
    auto callbacks = memory_.callbacks();
    call(H5Pset_file_image_callbacks(access, &callbacks), "H5Pset_file_image_callbacks");
    // An object left open would keep the file open: an error, not a silent delay.
    call(H5Pset_fclose_degree(access, H5F_CLOSE_SEMI), "H5Pset_fclose_degree");
    // One version of the format, whatever the library: its headers carry checksums.
    call(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18), "H5Pset_libver_bounds");
    return access;
  }

  Handle make_file() const {
    const Handle creation = open(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "H5Pcreate");
    call(H5Pset_obj_track_times(creation, false), "H5Pset_obj_track_times");
    // All attributes stay in the root group's header, under its checksum.
    call(H5Pset_attr_phase_change(creation, 64, 0), "H5Pset_attr_phase_change");
    // The library would first open a file of that name: there is none.
    return open(H5Fcreate((path_ + ".in-memory").c_str(), H5F_ACC_TRUNC, creation, access_),
                H5Fclose, "H5Fcreate");
  }

  void write_attribute(const std::string& name, hid_t file_type, hid_t memory_type, hid_t space,
                       const void* data) {
    const Handle attribute =
        open(H5Acreate2(file_, name.c_str(), file_type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
             "H5Acreate2");
    call(H5Awrite(attribute, memory_type, data), "H5Awrite");
  }

  std::string path_;
  FileMemory memory_;  // outlives access_ and file_
  Handle access_;
  Handle file_;
};

void fill_shard(ShardImage& image, const PairSetInfo& info, const Shard& shard,
                const PairRows& rows) {
  for (const auto& [name, rule] : attribute_rules(info, shard))
    image.write_attribute(name, rule.value);
  const auto rules = dataset_rules(info, shard.count);
  const std::array<const void*, kNumDatasets> data{rows.noise.data(), rows.image.data(),
                                                   rows.label.data(), rows.index.data()};
  const auto blocks = static_cast<std::size_t>(num_blocks(shard.count));
  std::vector<std::uint64_t> digests(blocks * kNumDatasets * 2);
  for (std::size_t i = 0; i < kNumDatasets; ++i) {
    const DatasetRule& rule = rules.at(kDatasetNames[i]);
    image.write_dataset(kDatasetNames[i], rule, data[i]);
    const auto of_dataset =
        digest_blocks(static_cast<const std::byte*>(data[i]), shard.count, rule.row_bytes);
    for (std::size_t block = 0; block < blocks; ++block) {
      std::copy(of_dataset[block].begin(), of_dataset[block].end(),
                digests.begin() + static_cast<std::ptrdiff_t>((block * kNumDatasets + i) * 2));
    }
  }
  image.write_dataset(kDigestsName, rules.at(kDigestsName), digests.data());
}

// --- Reading ---

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
    return check(result, name, path_, ErrorCode::kCorrupt);
  }
  Handle open(hid_t id, herr_t (*close)(hid_t), const char* name) const {
    return open_handle(id, close, name, path_, ErrorCode::kCorrupt);
  }

  Handle make_access() const {
    Handle access =
        open_handle(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "H5Pcreate", path_, ErrorCode::kInternal);
    // Finished files never change; locks fail on some network file systems.
    check(H5Pset_file_locking(access, false, true), "H5Pset_file_locking", path_,
          ErrorCode::kInternal);
    return access;
  }

  Handle open_file() const {
    std::array<unsigned char, kMagic.size()> magic{};
    if (bytes_ < magic.size()) {
      corrupt(path_, "expected an HDF5 file, found " + std::to_string(bytes_) + " bytes");
    }
    read_exactly(ReadDescriptor(path_).value(), path_, 0, magic.data(), magic.size());
    if (magic != kMagic) corrupt(path_, "expected an HDF5 file, found another signature");
    return open(H5Fopen(path_.c_str(), H5F_ACC_RDONLY, access_), H5Fclose, "H5Fopen");
  }

  void check_attributes(const AttributeRules& rules) const {
    std::string extra;
    const int count = call(H5Aget_num_attrs(root_), "H5Aget_num_attrs");
    for (int i = 0; i < count; ++i) {
      const Handle attribute =
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
    const Handle attribute = open(H5Aopen(root_, name.c_str(), H5P_DEFAULT), H5Aclose, "H5Aopen");
    const AttributeValue found = read_attribute(name, attribute, rule.value);
    if (found != rule.value) {
      throw Error(rule.code, path_ + ": attribute " + name + ": expected " + text_of(rule.value) +
                                 ", found " + text_of(found));
    }
  }

  AttributeValue read_attribute(const std::string& name, hid_t attribute,
                                const AttributeValue& like) const {
    const Handle type = open(H5Aget_type(attribute), H5Tclose, "H5Aget_type");
    const Handle space = open(H5Aget_space(attribute), H5Sclose, "H5Aget_space");
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
    const Handle object = open(H5Oopen(root_, name.c_str(), H5P_DEFAULT), H5Oclose, "H5Oopen");
    if (H5Iget_type(object) != H5I_DATASET)
      corrupt(path_, where + "expected a dataset, found another object");
    if (call(H5Aget_num_attrs(object), "H5Aget_num_attrs") != 0) {
      corrupt(path_, where + "expected no attributes, found some");
    }
    const Handle type = open(H5Dget_type(object), H5Tclose, "H5Dget_type");
    if (call(H5Tequal(type, rule.type), "H5Tequal") == 0) {
      corrupt(path_,
              where + "expected the type and byte order of the format, found " + type_text(type));
    }
    const Handle space = open(H5Dget_space(object), H5Sclose, "H5Dget_space");
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
    const Handle creation = open(H5Dget_create_plist(dataset), H5Pclose, "H5Dget_create_plist");
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
  Handle access_;
  Handle file_;
  Handle root_;
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

std::string pair_shard_name(std::int64_t shard_index) {
  std::array<char, 48> text{};
  std::snprintf(text.data(), text.size(), "pairs-%05lld.h5", static_cast<long long>(shard_index));
  return text.data();
}

PairShardRecord write_pair_shard(const std::string& folder, const PairSetInfo& info,
                                 std::int64_t shard_index, int attempt, const PairRows& rows) {
  const std::string path = folder + "/" + pair_shard_name(shard_index);
  const Shard shard = shard_of(info, shard_index, path);
  check_rows(info, shard, rows, path);
  const QuietHdf5 quiet;
  ShardImage image(path);
  fill_shard(image, info, shard, rows);
  const std::span<const std::byte> bytes = image.finish();
  DurableFile file(path, path + ".a" + std::to_string(attempt) + ".tmp");
  file.write(bytes.data(), bytes.size());
  file.commit();
  return {shard_index,  pair_shard_name(shard_index),      shard.first, shard.count,
          bytes.size(), sha256(bytes.data(), bytes.size())};
}

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
