#include "common/safetensors_file.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <set>
#include <string_view>
#include <utility>

#include "common/config.h"
#include "common/error.h"
#include "common/hash.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr const char* kMetadataKey = "__metadata__";
constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

struct DTypeRow {
  const char* name;  // in the file
  DType dtype;
  unsigned bits;
};
constexpr std::array<DTypeRow, 22> kDTypes{{
    {"F64", DType::kF64, 64},
    {"I64", DType::kI64, 64},
    {"U64", DType::kU64, 64},
    {"C64", DType::kC64, 64},
    {"F32", DType::kF32, 32},
    {"I32", DType::kI32, 32},
    {"U32", DType::kU32, 32},
    {"F16", DType::kF16, 16},
    {"BF16", DType::kBF16, 16},
    {"I16", DType::kI16, 16},
    {"U16", DType::kU16, 16},
    {"BOOL", DType::kBool, 8},
    {"U8", DType::kU8, 8},
    {"I8", DType::kI8, 8},
    {"F8_E5M2", DType::kF8E5M2, 8},
    {"F8_E4M3", DType::kF8E4M3, 8},
    {"F8_E8M0", DType::kF8E8M0, 8},
    {"F8_E4M3FNUZ", DType::kF8E4M3Fnuz, 8},
    {"F8_E5M2FNUZ", DType::kF8E5M2Fnuz, 8},
    {"F6_E2M3", DType::kF6E2M3, 6},
    {"F6_E3M2", DType::kF6E3M2, 6},
    {"F4", DType::kF4, 4},
}};

const DTypeRow& row_of(DType dtype) {
  for (const DTypeRow& row : kDTypes) {
    if (row.dtype == dtype) return row;
  }
  throw Error(ErrorCode::kInternal, "safetensors: a dtype without a row");
}

const DTypeRow* find_dtype(const std::string& name) {
  for (const DTypeRow& row : kDTypes) {
    if (name == row.name) return &row;
  }
  return nullptr;
}

// Product of the shape times `bits`, in bytes; nullopt on overflow or a broken byte.
std::optional<std::uint64_t> bytes_of(const std::vector<std::int64_t>& shape, unsigned bits) {
  std::uint64_t total = bits;
  for (const std::int64_t dimension : shape) {
    if (dimension < 0 ||
        __builtin_mul_overflow(total, static_cast<std::uint64_t>(dimension), &total))
      return {};
  }
  if (total % 8 != 0) return {};
  return total / 8;
}

std::string shape_text(const std::vector<std::int64_t>& shape) { return json(shape).dump(); }

std::vector<const TensorView*> in_file_order(const std::vector<TensorView>& tensors) {
  std::vector<const TensorView*> order;
  order.reserve(tensors.size());
  for (const TensorView& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const TensorView* a, const TensorView* b) {
    if (size_of(a->dtype) != size_of(b->dtype)) return size_of(a->dtype) > size_of(b->dtype);
    return a->name < b->name;
  });
  return order;
}

void check_writable(const std::vector<TensorView>& tensors) {
  std::set<std::string_view> names;
  for (const TensorView& tensor : tensors) {
    const std::string where = "safetensors: tensor \"" + tensor.name + "\": ";
    if (!names.insert(tensor.name).second) {
      throw Error(ErrorCode::kUsage, where + "expected a name of its own, found it twice");
    }
    if (tensor.name == kMetadataKey) {
      throw Error(ErrorCode::kUsage,
                  where + "expected a tensor's name, found the one of the metadata");
    }
    const auto expected = bytes_of(tensor.shape, row_of(tensor.dtype).bits);
    if (!expected || *expected != tensor.bytes.size()) {
      throw Error(ErrorCode::kUsage,
                  where + "expected " + (expected ? std::to_string(*expected) : "a whole number below 2^61") +
                      " bytes for " + to_string(tensor.dtype) + " " + shape_text(tensor.shape) +
                      ", found " + std::to_string(tensor.bytes.size()));
    }
  }
}

std::string json_text(const std::string& text) {
  try {
    return json(text).dump();
  } catch (const json::exception&) {
    throw Error(ErrorCode::kUsage,
                "safetensors: expected UTF-8 names and metadata, found other bytes");
  }
}

// Gives the whole file, piece by piece, to `sink(data, size)`.
template <typename Sink>
void emit(const std::vector<TensorView>& tensors, const Metadata& metadata, Sink sink) {
  const std::string header = safetensors_header(tensors, metadata);
  sink(header.data(), header.size());
  for (const TensorView* tensor : in_file_order(tensors))
    sink(tensor->bytes.data(), tensor->bytes.size());
}

// One tensor of a header under check.
struct Entry {
  TensorView tensor;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

// Everything below checks; each failure names the file, the key, what was expected and what was
// found.
class HeaderReader {
 public:
  HeaderReader(const std::string& path, std::span<const std::byte> file)
      : path_(path), file_(file) {}

  void read() {
    const std::string_view header = header_text();
    const json document = parse(header);
    for (const auto& [name, value] : document.items()) {
      if (name == kMetadataKey) {
        read_metadata(value);
      } else {
        read_entry(name, value);
      }
    }
    place(file_.subspan(kLengthBytes + header.size()));
  }

  std::vector<Entry> entries;
  Metadata metadata;

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::kCorrupt, path_ + ": " + what);
  }
  [[noreturn]] void fail(const std::string& key, const std::string& what) const {
    fail("tensor \"" + key + "\": " + what);
  }

  std::string_view header_text() const {
    if (file_.size() < kLengthBytes) {
      fail("expected at least 8 bytes of a safetensors file, found " +
           std::to_string(file_.size()));
    }
    std::uint64_t length = 0;
    for (unsigned byte = 0; byte < kLengthBytes; ++byte) {
      length |= std::to_integer<std::uint64_t>(file_[byte]) << (8 * byte);
    }
    const std::uint64_t available = file_.size() - kLengthBytes;
    if (length > kMaxHeaderBytes || length > available) {
      fail("header length: expected at most " +
           std::to_string(std::min(kMaxHeaderBytes, available)) + ", found " +
           std::to_string(length) + "; truncated, or not a safetensors file");
    }
    const std::string_view header(reinterpret_cast<const char*>(file_.data()) + kLengthBytes,
                                  length);
    if (header.empty() || header.front() != '{')
      fail("header: expected '{' as its first byte, found another");
    // The JSON parser would take a NUL for the end of its input.
    if (const auto nul = header.find('\0'); nul != std::string_view::npos) {
      fail("header: expected JSON text, found a NUL at byte " + std::to_string(kLengthBytes + nul));
    }
    return header;
  }

  json parse(std::string_view header) const {
    json document;
    try {
      document = parse_json(std::string(header), path_ + ": header");
    } catch (const Error& error) {
      throw Error(ErrorCode::kCorrupt, error.what());
    }
    if (!document.is_object()) fail("header: expected a JSON object, found another value");
    return document;
  }

  void read_metadata(const json& value) {
    if (!value.is_object())
      fail(std::string(kMetadataKey) + ": expected an object, found " + value.dump());
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) {
        fail(std::string(kMetadataKey) + "/" + key + ": expected a text, found " + text.dump());
      }
      metadata[key] = text.get<std::string>();
    }
  }

  void read_entry(const std::string& name, const json& value) {
    if (!value.is_object() || value.size() != 3 || !value.contains("dtype") ||
        !value.contains("shape") || !value.contains("data_offsets")) {
      fail(name, "expected an object of dtype, shape and data_offsets, found " + value.dump());
    }
    if (!value["dtype"].is_string())
      fail(name, "dtype: expected a text, found " + value["dtype"].dump());
    const DTypeRow* dtype = find_dtype(value["dtype"].get<std::string>());
    if (dtype == nullptr)
      fail(name, "dtype: expected one of the format's, found " + value["dtype"].dump());
    Entry entry;
    entry.tensor.name = name;
    entry.tensor.dtype = dtype->dtype;
    if (!value["shape"].is_array())
      fail(name, "shape: expected an array, found " + value["shape"].dump());
    for (const json& dimension : value["shape"]) {
      entry.tensor.shape.push_back(static_cast<std::int64_t>(natural(name, "shape", dimension)));
    }
    const json& offsets = value["data_offsets"];
    if (!offsets.is_array() || offsets.size() != 2) {
      fail(name, "data_offsets: expected two integers, found " + offsets.dump());
    }
    entry.begin = natural(name, "data_offsets", offsets[0]);
    entry.end = natural(name, "data_offsets", offsets[1]);
    const auto expected = bytes_of(entry.tensor.shape, dtype->bits);
    if (!expected) {
      fail(name, "shape: expected a whole number of bytes below 2^61, found " +
                     value["shape"].dump() + " of " + dtype->name);
    }
    if (entry.begin > entry.end || entry.end - entry.begin != *expected) {
      fail(name, "data_offsets: expected " + std::to_string(*expected) + " bytes for " +
                     dtype->name + " " + value["shape"].dump() + ", found " + offsets.dump());
    }
    entries.push_back(std::move(entry));
  }

  std::uint64_t natural(const std::string& name, const char* field, const json& value) const {
    if (!value.is_number_unsigned() ||
        value.get<std::uint64_t>() >
            static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      fail(name, std::string(field) + ": expected integers in 0..2^63-1, found " + value.dump());
    }
    return value.get<std::uint64_t>();
  }

  // No gap, no overlap, and the last tensor ends where the file does; then the views.
  void place(std::span<const std::byte> data) {
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    std::uint64_t position = 0;
    for (Entry& entry : entries) {
      if (entry.begin != position) {
        fail(entry.tensor.name, "data_offsets: expected to begin at " + std::to_string(position) +
                                    ", where the tensor before ends, found " +
                                    std::to_string(entry.begin));
      }
      if (entry.end > data.size()) {
        fail(entry.tensor.name, "data_offsets: expected to end within " +
                                    std::to_string(data.size()) + " bytes of data, found " +
                                    std::to_string(entry.end) + "; truncated file");
      }
      entry.tensor.bytes = data.subspan(entry.begin, entry.end - entry.begin);
      position = entry.end;
    }
    if (position != data.size()) {
      fail("data: expected " + std::to_string(position) + " bytes, as the header says, found " +
           std::to_string(data.size()));
    }
  }

  const std::string& path_;
  std::span<const std::byte> file_;
};

}  // namespace

std::size_t bits_of(DType dtype) { return row_of(dtype).bits; }

std::size_t size_of(DType dtype) {
  const unsigned bits = row_of(dtype).bits;
  return bits % 8 == 0 ? bits / 8 : 0;
}

const char* to_string(DType dtype) { return row_of(dtype).name; }

std::uint64_t num_elements(const TensorView& tensor) {
  return tensor.bytes.size() * 8 / row_of(tensor.dtype).bits;
}

std::string safetensors_header(const std::vector<TensorView>& tensors, const Metadata& metadata) {
  check_writable(tensors);
  Metadata all = metadata;
  all["format"] = "pt";
  std::string text = std::string("{\"") + kMetadataKey + "\":{";
  const char* separator = "";
  for (const auto& [key, value] : all) {
    text += separator + json_text(key) + ":" + json_text(value);
    separator = ",";
  }
  text += "}";
  std::uint64_t position = 0;
  for (const TensorView* tensor : in_file_order(tensors)) {
    const std::uint64_t end = position + tensor->bytes.size();
    text += "," + json_text(tensor->name) + ":{\"dtype\":\"" + to_string(tensor->dtype) +
            "\",\"shape\":" + shape_text(tensor->shape) + ",\"data_offsets\":[" +
            std::to_string(position) + "," + std::to_string(end) + "]}";
    position = end;
  }
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');
  if (text.size() > kMaxHeaderBytes) {
    throw Error(ErrorCode::kUsage, "safetensors: header: expected at most " +
                                       std::to_string(kMaxHeaderBytes) + " bytes, found " +
                                       std::to_string(text.size()));
  }
  std::string length(kLengthBytes, '\0');
  for (unsigned byte = 0; byte < kLengthBytes; ++byte) {
    length[byte] =
        static_cast<char>((static_cast<std::uint64_t>(text.size()) >> (8 * byte)) & 0xFF);
  }
  return length + text;
}

std::string write_safetensors(const std::string& path, const std::vector<TensorView>& tensors,
                              const Metadata& metadata) {
  check_writable(tensors);  // before anything is created
  DurableFile file(path);
  Sha256 hash;
  emit(tensors, metadata, [&](const void* data, std::size_t size) {
    hash.update(data, size);
    file.write(data, size);
  });
  file.commit();
  return hash.finish();
}

std::string safetensors_sha256(const std::vector<TensorView>& tensors, const Metadata& metadata) {
  Sha256 hash;
  emit(tensors, metadata, [&](const void* data, std::size_t size) { hash.update(data, size); });
  return hash.finish();
}

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path), file_(path) {
  HeaderReader reader(path_, file_.bytes());
  reader.read();
  for (Entry& entry : reader.entries) tensors_.push_back(std::move(entry.tensor));
  std::sort(tensors_.begin(), tensors_.end(),
            [](const TensorView& a, const TensorView& b) { return a.name < b.name; });
  metadata_ = std::move(reader.metadata);
}

const TensorView* SafetensorsFile::find(const std::string& name) const {
  const auto found = std::lower_bound(
      tensors_.begin(), tensors_.end(), name,
      [](const TensorView& tensor, const std::string& key) { return tensor.name < key; });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

const TensorView& SafetensorsFile::at(const std::string& name) const {
  if (const TensorView* tensor = find(name)) return *tensor;
  throw Error(ErrorCode::kCorrupt, path_ + ": expected a tensor \"" + name +
                                       "\", found none among " + std::to_string(tensors_.size()));
}

}  // namespace onestep
