#include "worker/data/image_dataset.h"

#include <hdf5.h>

#include <filesystem>
#include <optional>
#include <sstream>
#include <vector>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/hdf5_handle.h"

namespace onestep {
namespace {

constexpr const char* kFormat = "onestep-images";
constexpr std::int64_t kFormatVersion = 1;

// Reads the parts of one image file; every failure names the file, the part, what was expected and
// what was found.
class ImageFile {
 public:
  explicit ImageFile(const std::string& path) : path_(path), file_(open(path), H5Fclose) {
    if (!file_.valid()) {
      corrupt("the file", "a whole HDF5 file",
              "one that HDF5 cannot open (truncated, damaged or another format)");
    }
  }

  [[noreturn]] void corrupt(const std::string& what, const std::string& expected,
                            const std::string& found) const {
    throw Error(ErrorCode::kCorrupt,
                path_ + ": " + what + ": expected " + expected + ", found " + found);
  }

  [[nodiscard]] std::int64_t integer(const char* name) const {
    const Hdf5Handle attribute = open_attribute(name);
    const Hdf5Handle type(H5Aget_type(attribute), H5Tclose);
    const Hdf5Handle space(H5Aget_space(attribute), H5Sclose);
    std::int64_t value = 0;
    if (H5Tget_class(type) != H5T_INTEGER || H5Sget_simple_extent_npoints(space) != 1 ||
        H5Aread(attribute, H5T_NATIVE_INT64, &value) < 0) {
      corrupt(attribute_name(name), "one integer", "another type");
    }
    return value;
  }

  [[nodiscard]] std::string text(const char* name) const {
    const Hdf5Handle attribute = open_attribute(name);
    const Hdf5Handle type(H5Aget_type(attribute), H5Tclose);
    const Hdf5Handle space(H5Aget_space(attribute), H5Sclose);
    if (H5Tget_class(type) != H5T_STRING || H5Sget_simple_extent_npoints(space) != 1) {
      corrupt(attribute_name(name), "one string", "another type");
    }
    const Hdf5Handle memory(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_cset(memory, H5Tget_cset(type));
    std::string value;
    if (H5Tis_variable_str(type) > 0) {
      char* characters = nullptr;
      H5Tset_size(memory, H5T_VARIABLE);
      if (H5Aread(attribute, memory, &characters) < 0 || characters == nullptr) {
        corrupt(attribute_name(name), "one string", "none that can be read");
      }
      value = characters;
      H5free_memory(characters);
    } else {
      const std::size_t size = H5Tget_size(type);
      value.resize(size + 1);
      H5Tset_size(memory, size + 1);
      if (H5Aread(attribute, memory, value.data()) < 0) {
        corrupt(attribute_name(name), "one string", "none that can be read");
      }
      value.resize(value.find('\0') == std::string::npos ? size : value.find('\0'));
    }
    return value;
  }

  // A contiguous dataset of unsigned bytes of the given rank.
  std::vector<std::uint8_t> bytes(const char* name, int rank, std::vector<hsize_t>& shape) const {
    const std::string what = std::string("dataset `") + name + "`";
    const Hdf5Handle dataset(H5Dopen2(file_, name, H5P_DEFAULT), H5Dclose);
    if (!dataset.valid()) corrupt(what, "to be there", "none");
    const Hdf5Handle type(H5Dget_type(dataset), H5Tclose);
    if (H5Tequal(type, H5T_STD_U8LE) <= 0 && H5Tequal(type, H5T_STD_U8BE) <= 0) {
      corrupt(what, "unsigned bytes", "another type");
    }
    const Hdf5Handle space(H5Dget_space(dataset), H5Sclose);
    const int found_rank = H5Sget_simple_extent_ndims(space);
    if (found_rank != rank) {
      corrupt(what, std::to_string(rank) + " dimensions", std::to_string(found_rank));
    }
    shape.assign(static_cast<std::size_t>(rank), 0);
    H5Sget_simple_extent_dims(space, shape.data(), nullptr);
    // A damaged shape must not become an allocation: the storage is contiguous and lies within the
    // file.
    const Hdf5Handle layout(H5Dget_create_plist(dataset), H5Pclose);
    const auto stored = static_cast<std::uint64_t>(H5Dget_storage_size(dataset));
    const std::uint64_t in_file = std::filesystem::file_size(path_);
    std::uint64_t total = 1;
    for (const hsize_t size : shape) {
      if (size == 0 || size > in_file || total > in_file) {
        corrupt(what, "dimensions of 1 or more within the file's size", describe(shape));
      }
      total *= size;
    }
    if (H5Pget_layout(layout) != H5D_CONTIGUOUS || stored != total || stored > in_file) {
      corrupt(what, std::to_string(total) + " contiguous bytes for " + describe(shape),
              std::to_string(stored) + " stored bytes");
    }
    std::vector<std::uint8_t> content(total);
    if (H5Dread(dataset, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, content.data()) < 0) {
      corrupt(what, std::to_string(total) + " bytes", "bytes that cannot be read");
    }
    return content;
  }

  static std::string describe(const std::vector<hsize_t>& shape) {
    std::ostringstream text;
    for (std::size_t i = 0; i < shape.size(); ++i) text << (i == 0 ? "[" : ",") << shape[i];
    return text.str() + "]";
  }

 private:
  static hid_t open(const std::string& path) {
    if (!file_exists(path)) {
      throw Error(ErrorCode::kNotFound,
                  path + ": the image file: expected an HDF5 file, found none");
    }
    return H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  }

  static std::string attribute_name(const char* name) {
    return std::string("attribute `") + name + "`";
  }

  [[nodiscard]] Hdf5Handle open_attribute(const char* name) const {
    const htri_t there = H5Aexists(file_, name);
    if (there < 0)
      corrupt(attribute_name(name), "to be there",
              "a file whose attributes can't be read (damaged)");
    if (there == 0) corrupt(attribute_name(name), "to be there", "none (another format?)");
    const hid_t attribute = H5Aopen(file_, name, H5P_DEFAULT);
    if (attribute < 0) corrupt(attribute_name(name), "a readable attribute", "none");
    return {attribute, H5Aclose};
  }

  QuietHdf5 quiet_;
  std::string path_;
  Hdf5Handle file_;
};

// [N,C,H,W] bytes -> [N,C,side,side] in [-1,1]: the mean of each box, computed from the exact
// integer sum.
torch::Tensor box_mean(const torch::Tensor& bytes, std::int64_t side) {
  const std::int64_t box = bytes.size(2) / side;
  const auto sums = bytes.to(torch::kInt32)
                        .view({bytes.size(0), bytes.size(1), side, box, side, box})
                        .sum({3, 5}, /*keepdim=*/false, torch::kInt64);
  const auto mean = sums.to(torch::kFloat64) / static_cast<double>(box * box);
  return (mean / 127.5 - 1).to(torch::kFloat32);
}

}  // namespace

ImageDataset::ImageDataset(const DatasetSpec& spec) {
  const ImageFile file(spec.path);
  if (const std::string format = file.text("format"); format != kFormat) {
    file.corrupt("attribute `format`", std::string("\"") + kFormat + "\"", "\"" + format + "\"");
  }
  if (const std::int64_t version = file.integer("format_version"); version != kFormatVersion) {
    file.corrupt("attribute `format_version`", std::to_string(kFormatVersion),
                 std::to_string(version));
  }
  num_classes_ = file.integer("num_classes");
  if (num_classes_ < 1 || num_classes_ > 256) {
    file.corrupt("attribute `num_classes`", "1..256", std::to_string(num_classes_));
  }
  std::vector<hsize_t> image_shape, label_shape;
  auto image_bytes = file.bytes("images", 4, image_shape);
  const auto label_bytes = file.bytes("labels", 1, label_shape);
  if (label_shape[0] != image_shape[0]) {
    file.corrupt("dataset `labels`",
                 "a label for each of " + std::to_string(image_shape[0]) + " images",
                 std::to_string(label_shape[0]));
  }
  Sha256 hash;
  hash.update(image_bytes.data(), image_bytes.size());
  hash.update(label_bytes.data(), label_bytes.size());
  digest_ = hash.finish();
  if (const std::string expected = file.text("sha256"); expected != digest_) {
    file.corrupt("the digest of images and labels", expected, digest_);
  }
  for (std::size_t i = 0; i < label_bytes.size(); ++i) {
    if (label_bytes[i] >= num_classes_) {
      file.corrupt("dataset `labels`, row " + std::to_string(i),
                   "a label below " + std::to_string(num_classes_), std::to_string(label_bytes[i]));
    }
  }
  const auto height = static_cast<std::int64_t>(image_shape[2]);
  const auto width = static_cast<std::int64_t>(image_shape[3]);
  const std::int64_t side = spec.resolution == 0 ? height : spec.resolution;
  if (height != width || side < 1 || height % side != 0) {
    throw Error(ErrorCode::kMismatch,
                spec.path +
                    ": resolution: expected a divisor of the side of square images, found " +
                    std::to_string(side) + " for images of " + std::to_string(height) + "x" +
                    std::to_string(width));
  }
  const auto count = static_cast<std::int64_t>(image_shape[0]);
  const auto channels = static_cast<std::int64_t>(image_shape[1]);
  images_ = box_mean(
      torch::from_blob(image_bytes.data(), {count, channels, height, width}, torch::kUInt8), side);
  labels_ = torch::empty({count}, torch::kInt64);
  std::copy(label_bytes.begin(), label_bytes.end(), labels_.data_ptr<std::int64_t>());
}

}  // namespace onestep
