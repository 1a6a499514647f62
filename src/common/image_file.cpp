#include "common/image_file.h"

#include <fcntl.h>
#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <sstream>
#include <utility>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/hdf5_guard.h"
#include "common/hdf5_handle.h"

namespace onestep {
namespace {

constexpr const char* kFormat = "onestep-images";
constexpr std::int64_t kFormatVersion = 1;
constexpr std::int64_t kMaxClasses = 65536;
constexpr std::size_t kDigestCharacters = 64;
constexpr std::size_t kReadBytes = std::size_t{1} << 22;

std::string describe(const std::vector<hsize_t>& shape) {
  std::ostringstream text;
  for (std::size_t i = 0; i < shape.size(); ++i) text << (i == 0 ? "[" : ",") << shape[i];
  return text.str() + "]";
}

// Reads the header of one image file; every failure names the file, the part, what was expected and
// what was found.
class HeaderReader {
 public:
  explicit HeaderReader(const std::string& path) : path_(path), file_(open(path), H5Fclose) {
    if (!file_.valid()) {
      corrupt("the file", "a whole HDF5 file",
              "one that HDF5 cannot open (truncated, damaged or another format)");
    }
    in_file_ = file_size(path);
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

  [[nodiscard]] bool has_attribute(const char* name) const { return H5Aexists(file_, name) > 0; }

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
      if (size > in_file_)
        corrupt(attribute_name(name), "a string within the file", std::to_string(size) + " bytes");
      value.resize(size + 1);
      H5Tset_size(memory, size + 1);
      if (H5Aread(attribute, memory, value.data()) < 0) {
        corrupt(attribute_name(name), "one string", "none that can be read");
      }
      value.resize(value.find('\0') == std::string::npos ? size : value.find('\0'));
    }
    return value;
  }

  // Checks a contiguous dataset of unsigned integers of that size and rank; its offset in the file.
  std::uint64_t dataset(const char* name, int rank, int element_bytes,
                        std::vector<hsize_t>& shape) const {
    const std::string what = std::string("dataset `") + name + "`";
    const Hdf5Handle dataset(H5Dopen2(file_, name, H5P_DEFAULT), H5Dclose);
    if (!dataset.valid()) corrupt(what, "to be there", "none");
    const Hdf5Handle type(H5Dget_type(dataset), H5Tclose);
    const bool bytes = H5Tequal(type, H5T_STD_U8LE) > 0 || H5Tequal(type, H5T_STD_U8BE) > 0;
    if (element_bytes == 1 ? !bytes : H5Tequal(type, H5T_STD_U16LE) <= 0) {
      corrupt(what,
              element_bytes == 1 ? "unsigned bytes" : "unsigned 16-bit integers, little-endian",
              "another type");
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
    std::uint64_t total = static_cast<std::uint64_t>(element_bytes);
    for (const hsize_t size : shape) {
      if (size == 0 || size > in_file_ || total > in_file_) {
        corrupt(what, "dimensions of 1 or more within the file's size", describe(shape));
      }
      total *= size;
    }
    const Hdf5Handle layout(H5Dget_create_plist(dataset), H5Pclose);
    const auto stored = static_cast<std::uint64_t>(H5Dget_storage_size(dataset));
    if (H5Pget_layout(layout) != H5D_CONTIGUOUS || H5Pget_external_count(layout) != 0 ||
        stored != total) {
      corrupt(what, std::to_string(total) + " contiguous bytes for " + describe(shape),
              std::to_string(stored) + " stored bytes");
    }
    const haddr_t offset = H5Dget_offset(dataset);
    if (offset == HADDR_UNDEF || offset > in_file_ || total > in_file_ - offset) {
      corrupt(what, std::to_string(total) + " bytes within a file of " + std::to_string(in_file_),
              "another range");
    }
    return offset;
  }

 private:
  static hid_t open(const std::string& path) {
    if (!file_exists(path)) {
      throw Error(ErrorCode::kNotFound,
                  path + ": the image file: expected an HDF5 file, found none");
    }
    check_hdf5_in_child(path);
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
  std::uint64_t in_file_ = 0;
};

void read_exactly(int descriptor, const std::string& path, std::uint64_t offset,
                  std::span<std::uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = ::pread(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw Error(ErrorCode::kIo, path + ": pread: " + std::strerror(errno));
    if (got == 0) {
      throw Error(ErrorCode::kCorrupt, path + ": expected " + std::to_string(bytes.size()) +
                                           " more bytes at " + std::to_string(offset) +
                                           ", found the end of the file");
    }
    offset += static_cast<std::uint64_t>(got);
    bytes = bytes.subspan(static_cast<std::size_t>(got));
  }
}

// Writes the objects of a new file; errors are kIo, since what is written here always fits.
class HeaderWriter {
 public:
  HeaderWriter(const std::string& path, bool create) : path_(path) {
    const Hdf5Handle access = open(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "H5Pcreate");
    // One version of the format, whatever the library.
    call(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18), "H5Pset_libver_bounds");
    call(H5Pset_file_locking(access, false, true), "H5Pset_file_locking");
    if (create) {
      const Hdf5Handle creation = open(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "H5Pcreate");
      call(H5Pset_obj_track_times(creation, false), "H5Pset_obj_track_times");
      call(H5Pset_attr_phase_change(creation, 64, 0), "H5Pset_attr_phase_change");
      file_ = std::make_unique<Hdf5Handle>(
          open(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access), H5Fclose, "H5Fcreate"));
    } else {
      file_ = std::make_unique<Hdf5Handle>(
          open(H5Fopen(path.c_str(), H5F_ACC_RDWR, access), H5Fclose, "H5Fopen"));
    }
  }

  void integer(const char* name, std::int64_t value) {
    const Hdf5Handle space = open(H5Screate(H5S_SCALAR), H5Sclose, "H5Screate");
    const Hdf5Handle attribute =
        open(H5Acreate2(*file_, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
             "H5Acreate2");
    call(H5Awrite(attribute, H5T_NATIVE_INT64, &value), "H5Awrite");
  }

  void text(const char* name, const std::string& value) {
    const Hdf5Handle space = open(H5Screate(H5S_SCALAR), H5Sclose, "H5Screate");
    const Hdf5Handle type = text_type(std::max<std::size_t>(1, value.size()));
    const Hdf5Handle attribute = open(
        H5Acreate2(*file_, name, type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose, "H5Acreate2");
    call(H5Awrite(attribute, type, value.c_str()), "H5Awrite");
  }

  void replace_text(const char* name, const std::string& value) {
    const Hdf5Handle attribute = open(H5Aopen(*file_, name, H5P_DEFAULT), H5Aclose, "H5Aopen");
    const Hdf5Handle type = text_type(value.size());
    call(H5Awrite(attribute, type, value.data()), "H5Awrite");
  }

  // Room for the data; its offset in the file.
  std::uint64_t dataset(const char* name, hid_t type, const std::vector<hsize_t>& shape,
                        const void* data) {
    const Hdf5Handle space =
        open(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose,
             "H5Screate_simple");
    const Hdf5Handle creation = open(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "H5Pcreate");
    call(H5Pset_layout(creation, H5D_CONTIGUOUS), "H5Pset_layout");
    call(H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY), "H5Pset_alloc_time");
    call(H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER), "H5Pset_fill_time");
    call(H5Pset_obj_track_times(creation, false), "H5Pset_obj_track_times");
    const Hdf5Handle dataset =
        open(H5Dcreate2(*file_, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT), H5Dclose,
             "H5Dcreate2");
    if (data != nullptr)
      call(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), "H5Dwrite");
    const haddr_t offset = H5Dget_offset(dataset);
    if (offset == HADDR_UNDEF)
      throw Error(ErrorCode::kInternal, path_ + ": HDF5 gave a dataset no place");
    return offset;
  }

  void finish() { call(file_->close_now(), "H5Fclose"); }

 private:
  void call(herr_t result, const char* name) const {
    hdf5_check(result, name, path_, ErrorCode::kIo);
  }
  Hdf5Handle open(hid_t id, herr_t (*close)(hid_t), const char* name) const {
    return open_hdf5(id, close, name, path_, ErrorCode::kIo);
  }
  [[nodiscard]] Hdf5Handle text_type(std::size_t size) const {
    Hdf5Handle type = open(H5Tcopy(H5T_C_S1), H5Tclose, "H5Tcopy");
    call(H5Tset_size(type, size), "H5Tset_size");
    call(H5Tset_strpad(type, H5T_STR_NULLPAD), "H5Tset_strpad");
    call(H5Tset_cset(type, H5T_CSET_UTF8), "H5Tset_cset");
    return type;
  }

  QuietHdf5 quiet_;
  std::string path_;
  std::unique_ptr<Hdf5Handle> file_;
};

void compare_digest(const ImageFile& file, const std::string& found) {
  if (found == file.info().sha256) return;
  throw Error(ErrorCode::kCorrupt, file.path() + ": the digest of images and labels: expected " +
                                       file.info().sha256 + ", found " + found);
}

}  // namespace

ImageFile::ImageFile(const std::string& path) : path_(path) {
  const HeaderReader header(path);
  if (const std::string format = header.text("format"); format != kFormat) {
    header.corrupt("attribute `format`", std::string("\"") + kFormat + "\"", "\"" + format + "\"");
  }
  if (const std::int64_t version = header.integer("format_version"); version != kFormatVersion) {
    header.corrupt("attribute `format_version`", std::to_string(kFormatVersion),
                   std::to_string(version));
  }
  info_.num_classes = header.integer("num_classes");
  if (info_.num_classes < 0 || info_.num_classes > kMaxClasses) {
    header.corrupt("attribute `num_classes`", "0.." + std::to_string(kMaxClasses),
                   std::to_string(info_.num_classes));
  }
  info_.sha256 = header.text("sha256");
  for (const auto& [name, field] :
       {std::pair{"source", &info_.source}, {"recipe", &info_.recipe}}) {
    if (header.has_attribute(name)) *field = header.text(name);
  }
  std::vector<hsize_t> shape, label_shape;
  offsets_.images = header.dataset("images", 4, 1, shape);
  info_.count = static_cast<std::int64_t>(shape[0]);
  info_.channels = static_cast<std::int64_t>(shape[1]);
  info_.height = static_cast<std::int64_t>(shape[2]);
  info_.width = static_cast<std::int64_t>(shape[3]);
  if (info_.num_classes > 0) {
    offsets_.labels = header.dataset("labels", 1, info_.label_bytes(), label_shape);
    if (label_shape[0] != shape[0]) {
      header.corrupt("dataset `labels`",
                     "a label for each of " + std::to_string(shape[0]) + " images",
                     std::to_string(label_shape[0]));
    }
  }
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) throw Error(ErrorCode::kIo, path + ": open: " + std::strerror(errno));
}

ImageFile::ImageFile(ImageFile&& other) noexcept
    : path_(std::move(other.path_)),
      info_(std::move(other.info_)),
      offsets_(other.offsets_),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

ImageFile& ImageFile::operator=(ImageFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(info_, other.info_);
  std::swap(offsets_, other.offsets_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

ImageFile::~ImageFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void ImageFile::read_images(std::int64_t first, std::span<std::uint8_t> bytes) const {
  const auto row = static_cast<std::uint64_t>(info_.row_bytes());
  if (first < 0 || bytes.size() % row != 0 ||
      static_cast<std::uint64_t>(first) + bytes.size() / row >
          static_cast<std::uint64_t>(info_.count)) {
    throw Error(ErrorCode::kInternal, path_ + ": images: expected rows of 0.." +
                                          std::to_string(info_.count - 1) + ", found " +
                                          std::to_string(bytes.size()) + " bytes from row " +
                                          std::to_string(first));
  }
  read_exactly(descriptor_, path_, offsets_.images + static_cast<std::uint64_t>(first) * row,
               bytes);
}

std::vector<std::uint8_t> ImageFile::label_bytes() const {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(info_.count * info_.label_bytes()));
  read_exactly(descriptor_, path_, offsets_.labels, bytes);
  return bytes;
}

std::vector<std::int64_t> ImageFile::read_labels() const {
  const std::vector<std::uint8_t> bytes = label_bytes();
  const int width = info_.label_bytes();
  std::vector<std::int64_t> labels(width == 0 ? 0 : static_cast<std::size_t>(info_.count));
  for (std::size_t row = 0; row < labels.size(); ++row) {
    labels[row] = width == 1 ? bytes[row] : bytes[2 * row] + 256 * bytes[2 * row + 1];
    if (labels[row] >= info_.num_classes) {
      throw Error(ErrorCode::kCorrupt, path_ + ": dataset `labels`, row " + std::to_string(row) +
                                           ": expected a label below " +
                                           std::to_string(info_.num_classes) + ", found " +
                                           std::to_string(labels[row]));
    }
  }
  return labels;
}

std::string ImageFile::verify() const {
  Sha256 hash;
  const auto row = static_cast<std::size_t>(info_.row_bytes());
  const auto rows_a_read = static_cast<std::int64_t>(std::max<std::size_t>(1, kReadBytes / row));
  std::vector<std::uint8_t> bytes;
  for (std::int64_t first = 0; first < info_.count; first += rows_a_read) {
    bytes.resize(static_cast<std::size_t>(std::min(rows_a_read, info_.count - first)) * row);
    read_images(first, bytes);
    hash.update(bytes.data(), bytes.size());
  }
  const std::vector<std::uint8_t> labels = label_bytes();
  hash.update(labels.data(), labels.size());
  const std::string digest = hash.finish();
  compare_digest(*this, digest);
  static_cast<void>(read_labels());
  return digest;
}

std::string ImageFile::check_digest(std::span<const std::uint8_t> images) const {
  const std::vector<std::uint8_t> labels = label_bytes();
  Sha256 hash;
  hash.update(images.data(), images.size());
  hash.update(labels.data(), labels.size());
  const std::string digest = hash.finish();
  compare_digest(*this, digest);
  return digest;
}

ImageFileOffsets create_image_file(const std::string& path, const ImageFileInfo& info,
                                   std::span<const std::uint8_t> labels) {
  if (labels.size() != static_cast<std::size_t>(info.count * info.label_bytes())) {
    throw Error(ErrorCode::kInternal, path + ": labels: expected " +
                                          std::to_string(info.count * info.label_bytes()) +
                                          " bytes, found " + std::to_string(labels.size()));
  }
  const auto size = [](std::int64_t value) { return static_cast<hsize_t>(value); };
  HeaderWriter file(path, /*create=*/true);
  file.text("format", kFormat);
  file.integer("format_version", kFormatVersion);
  file.integer("num_classes", info.num_classes);
  file.text("sha256", std::string(kDigestCharacters, '\0'));
  file.text("source", info.source);
  file.text("recipe", info.recipe);
  ImageFileOffsets offsets;
  if (info.num_classes > 0) {
    offsets.labels = file.dataset("labels", info.label_bytes() == 1 ? H5T_STD_U8LE : H5T_STD_U16LE,
                                  {size(info.count)}, labels.data());
  }
  offsets.images = file.dataset(
      "images", H5T_STD_U8LE,
      {size(info.count), size(info.channels), size(info.height), size(info.width)}, nullptr);
  file.finish();
  return offsets;
}

void seal_image_file(const std::string& path, const std::string& sha256) {
  HeaderWriter file(path, /*create=*/false);
  file.replace_text("sha256", sha256);
  file.finish();
}

}  // namespace onestep
