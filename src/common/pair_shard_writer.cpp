#include <hdf5.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/hdf5_handle.h"
#include "common/pair_file.h"
#include "common/pair_shard_layout.h"

namespace onestep {
namespace {


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
    const Hdf5Handle space = open(H5Screate(H5S_SCALAR), H5Sclose, "H5Screate");
    if (const auto* text = std::get_if<std::string>(&value)) {
      if (text->empty() || text->size() > kMaxAttributeBytes) {
        throw Error(ErrorCode::kInternal, path_ + ": attribute " + name + ": expected 1.." +
                                              std::to_string(kMaxAttributeBytes) +
                                              " bytes, found " + std::to_string(text->size()));
      }
      const Hdf5Handle type = open(H5Tcopy(H5T_C_S1), H5Tclose, "H5Tcopy");
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
    const Hdf5Handle space = open(
        H5Screate_simple(static_cast<int>(rule.dimensions.size()), rule.dimensions.data(), nullptr),
        H5Sclose, "H5Screate_simple");
    const Hdf5Handle creation = open(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "H5Pcreate");
    call(H5Pset_layout(creation, H5D_CONTIGUOUS), "H5Pset_layout");
    call(H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY), "H5Pset_alloc_time");
    call(H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER), "H5Pset_fill_time");
    call(H5Pset_obj_track_times(creation, false), "H5Pset_obj_track_times");
    const Hdf5Handle dataset =
        open(H5Dcreate2(file_, name.c_str(), rule.type, space, H5P_DEFAULT, creation, H5P_DEFAULT),
             H5Dclose, "H5Dcreate2");
    call(H5Dwrite(dataset, rule.type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), "H5Dwrite");
  }

  // Closes the file; the bytes live as long as the object.
  std::span<const std::byte> finish() {
    call(H5Fflush(file_, H5F_SCOPE_GLOBAL), "H5Fflush");
    const ssize_t allocated = hdf5_check(H5Fget_file_image(file_, nullptr, 0), "H5Fget_file_image",
                                    path_, ErrorCode::kInternal);
    call(file_.close_now(), "H5Fclose");
    return memory_.bytes(static_cast<std::size_t>(allocated), path_);
  }

 private:
  static constexpr std::size_t kGrowBytes = std::size_t{1} << 20;

  void call(herr_t result, const char* name) const {
    hdf5_check(result, name, path_, ErrorCode::kInternal);
  }
  Hdf5Handle open(hid_t id, herr_t (*close)(hid_t), const char* name) const {
    return open_hdf5(id, close, name, path_, ErrorCode::kInternal);
  }

  Hdf5Handle make_access() {
    Hdf5Handle access = open(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "H5Pcreate");
    call(H5Pset_fapl_core(access, kGrowBytes, false), "H5Pset_fapl_core");
    auto callbacks = memory_.callbacks();
    call(H5Pset_file_image_callbacks(access, &callbacks), "H5Pset_file_image_callbacks");
    // An object left open would keep the file open: an error, not a silent delay.
    call(H5Pset_fclose_degree(access, H5F_CLOSE_SEMI), "H5Pset_fclose_degree");
    // One version of the format, whatever the library: its headers carry checksums.
    call(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18), "H5Pset_libver_bounds");
    return access;
  }

  Hdf5Handle make_file() const {
    const Hdf5Handle creation = open(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "H5Pcreate");
    call(H5Pset_obj_track_times(creation, false), "H5Pset_obj_track_times");
    // All attributes stay in the root group's header, under its checksum.
    call(H5Pset_attr_phase_change(creation, 64, 0), "H5Pset_attr_phase_change");
    // The library would first open a file of that name: there is none.
    return open(H5Fcreate((path_ + ".in-memory").c_str(), H5F_ACC_TRUNC, creation, access_),
                H5Fclose, "H5Fcreate");
  }

  void write_attribute(const std::string& name, hid_t file_type, hid_t memory_type, hid_t space,
                       const void* data) {
    const Hdf5Handle attribute =
        open(H5Acreate2(file_, name.c_str(), file_type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
             "H5Acreate2");
    call(H5Awrite(attribute, memory_type, data), "H5Awrite");
  }

  std::string path_;
  FileMemory memory_;  // outlives access_ and file_
  Hdf5Handle access_;
  Hdf5Handle file_;
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

}  // namespace

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

}  // namespace onestep
