#include "common/embedding_file.h"

#include <fcntl.h>
#include <hdf5.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/hdf5_guard.h"
#include "common/hdf5_handle.h"

namespace onestep {
namespace {

constexpr const char* kEmbeddingFormat = "onestep-embeddings";
constexpr std::int64_t kEmbeddingVersion = 1;
constexpr std::size_t kDigestSize = 64;
constexpr std::int64_t kMaxTextElements = std::int64_t{1} << 28;  // of a row; keeps products within 64 bits

// Shape of a dataset of `rows` rows.
std::array<hsize_t, 3> shape_of(const EmbeddingFileInfo& info, std::int64_t rows) {
  return {static_cast<hsize_t>(rows), static_cast<hsize_t>(info.tokens), static_cast<hsize_t>(info.width)};
}

// Attributes and datasets of one open file; every failure names the file, the part, expected and found.
class EmbeddingHeader {
 public:
  EmbeddingHeader(const std::string& path, hid_t file) : path_(path), file_(file) {}

  [[noreturn]] void corrupt(const std::string& what, const std::string& expected, const std::string& found) const {
    throw Error(ErrorCode::kCorrupt, path_ + ": " + what + ": expected " + expected + ", found " + found);
  }

  // A text of exactly `size` bytes.
  [[nodiscard]] std::string text(const char* name, std::size_t size) const {
    const std::string what = std::string("attribute `") + name + "`";
    const Hdf5Handle attribute(open(name, what), H5Aclose);
    const Hdf5Handle type(H5Aget_type(attribute), H5Tclose);
    const Hdf5Handle space(H5Aget_space(attribute), H5Sclose);
    std::string value(size, '\0');
    if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0 || H5Tget_size(type) != size ||
        H5Sget_simple_extent_npoints(space) != 1 || H5Aread(attribute, type, value.data()) < 0) {
      corrupt(what, "a text of " + std::to_string(size) + " bytes", "another type");
    }
    return value;
  }

  [[nodiscard]] std::int64_t integer(const char* name) const {
    const std::string what = std::string("attribute `") + name + "`";
    const Hdf5Handle attribute(open(name, what), H5Aclose);
    const Hdf5Handle type(H5Aget_type(attribute), H5Tclose);
    const Hdf5Handle space(H5Aget_space(attribute), H5Sclose);
    std::int64_t value = 0;
    if (H5Tget_class(type) != H5T_INTEGER || H5Sget_simple_extent_npoints(space) != 1 ||
        H5Aread(attribute, H5T_NATIVE_INT64, &value) < 0) {
      corrupt(what, "one integer", "another type");
    }
    return value;
  }

  // Offset of a contiguous F32 dataset of that shape.
  [[nodiscard]] std::uint64_t dataset(const char* name, const std::array<hsize_t, 3>& shape, std::uint64_t file_bytes) const {
    const std::string what = std::string("dataset `") + name + "`";
    const Hdf5Handle dataset(H5Dopen2(file_, name, H5P_DEFAULT), H5Dclose);
    if (!dataset.valid()) corrupt(what, "to be there", "none");
    const Hdf5Handle type(H5Dget_type(dataset), H5Tclose);
    if (H5Tequal(type, H5T_IEEE_F32LE) <= 0) corrupt(what, "32-bit floats, little-endian", "another type");
    const Hdf5Handle space(H5Dget_space(dataset), H5Sclose);
    std::array<hsize_t, 3> found{};
    if (H5Sget_simple_extent_ndims(space) != 3 || H5Sget_simple_extent_dims(space, found.data(), nullptr) < 0 || found != shape) {
      corrupt(what, "the shape that the attributes give", "another");
    }
    const std::uint64_t bytes = shape[0] * shape[1] * shape[2] * sizeof(float);
    const Hdf5Handle layout(H5Dget_create_plist(dataset), H5Pclose);
    const haddr_t offset = H5Dget_offset(dataset);
    if (H5Pget_layout(layout) != H5D_CONTIGUOUS || H5Pget_external_count(layout) != 0 || offset == HADDR_UNDEF ||
        offset > file_bytes || bytes > file_bytes - offset) {
      corrupt(what, std::to_string(bytes) + " contiguous bytes within a file of " + std::to_string(file_bytes), "another layout");
    }
    return offset;
  }

 private:
  [[nodiscard]] hid_t open(const char* name, const std::string& what) const {
    const hid_t attribute = H5Aexists(file_, name) > 0 ? H5Aopen(file_, name, H5P_DEFAULT) : -1;
    if (attribute < 0) corrupt(what, "to be there", "none (another format?)");
    return attribute;
  }

  const std::string& path_;
  hid_t file_;
};

}  // namespace

std::string EmbeddingFileInfo::digest() const {
  return onestep::sha256("embeddings " + std::to_string(count) + " " + std::to_string(tokens) + " " + std::to_string(width) + " " +
                         prompts_sha256 + " " + text_encoder_sha256 + " " + sha256);
}

struct EmbeddingWriter::State {
  std::string path, temporary_path;
  EmbeddingFileInfo info;
  QuietHdf5 quiet;
  std::unique_ptr<Hdf5Handle> file, text;
  Sha256 hash;
  std::int64_t written = 0;
  bool published = false;

  void call(herr_t result, const char* name) const { hdf5_check(result, name, temporary_path, ErrorCode::kIo); }
  [[nodiscard]] Hdf5Handle open(hid_t id, herr_t (*close)(hid_t), const char* name) const {
    return open_hdf5(id, close, name, temporary_path, ErrorCode::kIo);
  }
  [[nodiscard]] Hdf5Handle create_dataset(const char* name, std::int64_t rows) const {
    const auto shape = shape_of(info, rows);
    const Hdf5Handle space = open(H5Screate_simple(3, shape.data(), nullptr), H5Sclose, "H5Screate_simple");
    const Hdf5Handle creation = open(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "H5Pcreate");
    call(H5Pset_layout(creation, H5D_CONTIGUOUS), "H5Pset_layout");
    call(H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY), "H5Pset_alloc_time");
    call(H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER), "H5Pset_fill_time");
    call(H5Pset_obj_track_times(creation, false), "H5Pset_obj_track_times");
    return open(H5Dcreate2(*file, name, H5T_IEEE_F32LE, space, H5P_DEFAULT, creation, H5P_DEFAULT), H5Dclose, "H5Dcreate2");
  }
  void write(hid_t dataset, std::int64_t first, std::span<const float> rows) {
    const Hdf5Handle space = open(H5Dget_space(dataset), H5Sclose, "H5Dget_space");
    const std::array<hsize_t, 3> start{static_cast<hsize_t>(first), 0, 0};
    const auto count = shape_of(info, static_cast<std::int64_t>(rows.size()) / info.row_elements());
    call(H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr), "H5Sselect_hyperslab");
    const Hdf5Handle memory = open(H5Screate_simple(3, count.data(), nullptr), H5Sclose, "H5Screate_simple");
    call(H5Dwrite(dataset, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, rows.data()), "H5Dwrite");
    hash.update(rows.data(), rows.size_bytes());
  }
  void attribute(const char* name, std::int64_t value) const {
    const Hdf5Handle space = open(H5Screate(H5S_SCALAR), H5Sclose, "H5Screate");
    const Hdf5Handle made = open(H5Acreate2(*file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose, "H5Acreate2");
    call(H5Awrite(made, H5T_NATIVE_INT64, &value), "H5Awrite");
  }
  void attribute(const char* name, const std::string& value) const {
    const Hdf5Handle space = open(H5Screate(H5S_SCALAR), H5Sclose, "H5Screate");
    const Hdf5Handle type = open(H5Tcopy(H5T_C_S1), H5Tclose, "H5Tcopy");
    call(H5Tset_size(type, value.size()), "H5Tset_size");
    call(H5Tset_strpad(type, H5T_STR_NULLPAD), "H5Tset_strpad");
    const Hdf5Handle made = open(H5Acreate2(*file, name, type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose, "H5Acreate2");
    call(H5Awrite(made, type, value.data()), "H5Awrite");
  }
};

EmbeddingWriter::EmbeddingWriter(const std::string& path, const EmbeddingFileInfo& info, std::span<const float> null_text)
    : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.path = path;
  state.temporary_path = path + ".tmp";
  state.info = info;
  if (null_text.size() != static_cast<std::size_t>(info.row_elements()) || info.count < 1) {
    throw Error(ErrorCode::kInternal, path + ": null_text: expected " + std::to_string(info.row_elements()) +
                                          " elements and a prompt or more, found " + std::to_string(null_text.size()) + " and " +
                                          std::to_string(info.count));
  }
  const Hdf5Handle access = state.open(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "H5Pcreate");
  state.call(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18), "H5Pset_libver_bounds");
  state.call(H5Pset_file_locking(access, false, true), "H5Pset_file_locking");
  const Hdf5Handle creation = state.open(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "H5Pcreate");
  state.call(H5Pset_obj_track_times(creation, false), "H5Pset_obj_track_times");
  state.file = std::make_unique<Hdf5Handle>(
      state.open(H5Fcreate(state.temporary_path.c_str(), H5F_ACC_TRUNC, creation, access), H5Fclose, "H5Fcreate"));
  const Hdf5Handle null_dataset = state.create_dataset("null_text", 1);
  state.write(null_dataset, 0, null_text);
  state.text = std::make_unique<Hdf5Handle>(state.create_dataset("text", info.count));
}

EmbeddingWriter::~EmbeddingWriter() {
  if (state_->published) return;
  state_->text.reset();
  state_->file.reset();
  ::unlink(state_->temporary_path.c_str());
}

void EmbeddingWriter::add(std::span<const float> rows) {
  const auto row = static_cast<std::size_t>(state_->info.row_elements());
  const auto count = static_cast<std::int64_t>(rows.size() / row);
  if (rows.size() % row != 0 || state_->written + count > state_->info.count) {
    throw Error(ErrorCode::kInternal, state_->path + ": text: expected whole rows, " + std::to_string(state_->info.count) +
                                          " in all, found " + std::to_string(rows.size()) + " more elements after row " +
                                          std::to_string(state_->written));
  }
  state_->write(*state_->text, state_->written, rows);
  state_->written += count;
}

EmbeddingFileInfo EmbeddingWriter::finish() {
  State& state = *state_;
  if (state.written != state.info.count) {
    throw Error(ErrorCode::kInternal, state.path + ": text: expected " + std::to_string(state.info.count) + " rows, found " +
                                          std::to_string(state.written));
  }
  state.info.sha256 = state.hash.finish();
  state.attribute("format", std::string(kEmbeddingFormat));
  state.attribute("format_version", kEmbeddingVersion);
  state.attribute("count", state.info.count);
  state.attribute("tokens", state.info.tokens);
  state.attribute("width", state.info.width);
  state.attribute("prompts_sha256", state.info.prompts_sha256);
  state.attribute("text_encoder_sha256", state.info.text_encoder_sha256);
  state.attribute("sha256", state.info.sha256);
  state.call(state.text->close_now(), "H5Dclose");
  state.call(state.file->close_now(), "H5Fclose");
  publish_file_durably(state.temporary_path, state.path);
  state.published = true;
  return state.info;
}

EmbeddingFile::EmbeddingFile(const std::string& path) : path_(path) {
  if (!file_exists(path)) throw Error(ErrorCode::kNotFound, path + ": expected an embeddings file, found none");
  check_hdf5_in_child(path);
  const QuietHdf5 quiet;
  const Hdf5Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  const EmbeddingHeader header(path_, file);
  if (!file.valid()) header.corrupt("the file", "a whole HDF5 file", "one that HDF5 cannot open");
  if (const std::string format = header.text("format", std::strlen(kEmbeddingFormat)); format != kEmbeddingFormat) {
    header.corrupt("attribute `format`", kEmbeddingFormat, format);
  }
  if (const std::int64_t version = header.integer("format_version"); version != kEmbeddingVersion) {
    header.corrupt("attribute `format_version`", std::to_string(kEmbeddingVersion), std::to_string(version));
  }
  const std::uint64_t bytes = file_size(path);
  const auto size = [&](const char* name, std::int64_t most) {
    const std::int64_t value = header.integer(name);
    if (value < 1 || value > most) {
      header.corrupt(std::string("attribute `") + name + "`", "1.." + std::to_string(most), std::to_string(value));
    }
    return value;
  };
  info_.tokens = size("tokens", 1 << 14);
  info_.width = size("width", kMaxTextElements >> 14);
  info_.count = size("count", static_cast<std::int64_t>(bytes));
  for (const auto& [name, field] : {std::pair{"prompts_sha256", &info_.prompts_sha256},
                                    {"text_encoder_sha256", &info_.text_encoder_sha256}, {"sha256", &info_.sha256}}) {
    *field = header.text(name, kDigestSize);
  }
  null_text_offset_ = header.dataset("null_text", shape_of(info_, 1), bytes);
  text_offset_ = header.dataset("text", shape_of(info_, info_.count), bytes);
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) throw Error(ErrorCode::kIo, path + ": open: " + std::strerror(errno));
}

EmbeddingFile::~EmbeddingFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void EmbeddingFile::read_at(std::uint64_t offset, std::span<float> values) const {
  auto bytes = std::as_writable_bytes(values);
  while (!bytes.empty()) {
    const ssize_t got = ::pread(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw Error(ErrorCode::kIo, path_ + ": pread: " + std::strerror(errno));
    if (got == 0) {
      throw Error(ErrorCode::kCorrupt, path_ + ": expected " + std::to_string(bytes.size()) + " more bytes at " +
                                           std::to_string(offset) + ", found the end of the file");
    }
    offset += static_cast<std::uint64_t>(got);
    bytes = bytes.subspan(static_cast<std::size_t>(got));
  }
}

void EmbeddingFile::read_null_text(std::span<float> values) const { read_at(null_text_offset_, values); }

void EmbeddingFile::read_row(std::int64_t row, std::span<float> values) const {
  if (row < 0 || row >= info_.count) {
    throw Error(ErrorCode::kInternal, path_ + ": text: expected a row below " + std::to_string(info_.count) + ", found " +
                                          std::to_string(row));
  }
  read_at(text_offset_ + static_cast<std::uint64_t>(row) * values.size_bytes(), values);
}

void EmbeddingFile::verify() const {
  Sha256 hash;
  std::vector<float> row(static_cast<std::size_t>(info_.row_elements()));
  for (std::int64_t i = -1; i < info_.count; ++i) {
    if (i < 0) {
      read_null_text(row);
    } else {
      read_row(i, row);
    }
    hash.update(row.data(), row.size() * sizeof(float));
  }
  if (const std::string found = hash.finish(); found != info_.sha256) {
    throw Error(ErrorCode::kCorrupt, path_ + ": the digest of null_text and text: expected " + info_.sha256 + ", found " + found);
  }
}

}  // namespace onestep
