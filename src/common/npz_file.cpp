#include "common/npz_file.h"

#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <string_view>

#include "common/error.h"
#include "common/hash.h"

namespace onestep {
namespace {

constexpr std::uint32_t kLocalSignature = 0x04034b50, kDirectorySignature = 0x02014b50, kEndSignature = 0x06054b50;
constexpr std::size_t kLocalBytes = 30, kDirectoryBytes = 46, kEndBytes = 22;
constexpr std::uint16_t kStored = 0, kDeflated = 8;
constexpr std::uint64_t kMaxDeflateRatio = 1032;  // of the format itself: a damaged size must not become an allocation
constexpr const char* kSuffix = ".npy";
constexpr std::string_view kMagic("\x93NUMPY", 6);

std::uint64_t little_endian(const std::byte* data, std::size_t size) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < size; ++i) value |= std::to_integer<std::uint64_t>(data[i]) << (8 * i);
  return value;
}

std::uint16_t u16(const std::byte* data) { return static_cast<std::uint16_t>(little_endian(data, 2)); }
std::uint32_t u32(const std::byte* data) { return static_cast<std::uint32_t>(little_endian(data, 4)); }

std::uint32_t crc_of(const void* data, std::size_t size) {
  return static_cast<std::uint32_t>(crc32_z(0, static_cast<const Bytef*>(data), size));
}

// The Python literal in an array's header: {'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }.
struct NpyHeader {
  std::string descr;
  bool is_fortran = false;
  std::vector<std::int64_t> shape;
};

// What a literal should have had where it is wrong.
struct Expected {
  std::string what;
};

// Each method consumes what it names, or throws Expected.
class LiteralReader {
 public:
  explicit LiteralReader(std::string_view text) : text_(text) {}

  NpyHeader read() {
    NpyHeader header;
    std::set<std::string> seen;
    expect('{');
    while (!take('}')) {
      const std::string key = quoted();
      if (!seen.insert(key).second) throw Expected{"each field once"};
      expect(':');
      if (key == "descr") {
        header.descr = peek() == '[' ? std::string("a structured type") : quoted();
      } else if (key == "fortran_order") {
        header.is_fortran = boolean();
      } else if (key == "shape") {
        header.shape = tuple();
      } else {
        throw Expected{"descr, fortran_order and shape"};
      }
      if (header.descr == "a structured type") return header;
      if (!take(',') && peek() != '}') throw Expected{"',' or '}'"};
    }
    skip_blanks();
    if (at_ != text_.size()) throw Expected{"nothing after '}'"};
    if (seen.size() != 3) throw Expected{"descr, fortran_order and shape"};
    return header;
  }

 private:
  void skip_blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  char peek() {
    skip_blanks();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) throw Expected{std::string("'") + c + "'"};
  }
  std::string quoted() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') throw Expected{"a quoted text"};
    const std::size_t end = text_.find(quote, ++at_);
    if (end == std::string_view::npos) throw Expected{"a closing quote"};
    std::string text(text_.substr(at_, end - at_));
    at_ = end + 1;
    return text;
  }
  bool boolean() {
    skip_blanks();
    for (const bool value : {false, true}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.substr(at_, word.size()) != word) continue;
      at_ += word.size();
      return value;
    }
    throw Expected{"True or False"};
  }
  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> numbers;
    expect('(');
    while (!take(')')) {
      skip_blanks();
      std::int64_t number = 0;
      const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), number);
      if (error != std::errc() || number < 0) throw Expected{"whole numbers of 0 or more in shape"};
      at_ = static_cast<std::size_t>(end - text_.data());
      numbers.push_back(number);
      if (!take(',') && peek() != ')') throw Expected{"',' or ')' in shape"};
    }
    return numbers;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::optional<std::uint64_t> product(const std::vector<std::int64_t>& shape) {
  std::uint64_t total = 1;
  for (const std::int64_t size : shape) {
    if (__builtin_mul_overflow(total, static_cast<std::uint64_t>(size), &total)) return std::nullopt;
  }
  return total;
}

template <class Number>
std::vector<double> numbers_of(const char* data, std::size_t count) {
  std::vector<double> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    Number number;
    std::memcpy(&number, data + i * sizeof(Number), sizeof(Number));
    values[i] = static_cast<double>(number);
  }
  return values;
}

// First index fastest -> last index fastest.
std::vector<double> to_c_order(const std::vector<double>& values, const std::vector<std::int64_t>& shape) {
  std::vector<double> result(values.size());
  std::vector<std::int64_t> index(shape.size(), 0);
  for (const double value : values) {
    std::int64_t place = 0;
    for (std::size_t d = 0; d < shape.size(); ++d) place = place * shape[d] + index[d];
    result[static_cast<std::size_t>(place)] = value;
    for (std::size_t d = 0; d < shape.size() && ++index[d] == shape[d]; ++d) index[d] = 0;
  }
  return result;
}

void put(std::string& text, std::uint64_t value, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) text += static_cast<char>((value >> (8 * i)) & 0xFF);
}

std::string npy_bytes(const std::string& where, const NpyArray& array) {
  const auto count = product(array.shape);
  if (!count || *count != array.values.size()) {
    throw Error(ErrorCode::kUsage, where + ": expected values for shape " + shape_text(array.shape) + ", found " +
                                       std::to_string(array.values.size()));
  }
  std::string header = "{'descr': '<f8', 'fortran_order': False, 'shape': " + shape_text(array.shape) + ", }";
  constexpr std::size_t kAlignment = 64, kPrefix = 10;
  header.append(kAlignment - 1 - (kPrefix + header.size()) % kAlignment, ' ');
  header += '\n';
  std::string bytes(kMagic);
  put(bytes, 1, 2);  // version 1.0
  put(bytes, header.size(), 2);
  bytes += header;
  bytes.append(reinterpret_cast<const char*>(array.values.data()), array.values.size() * sizeof(double));
  return bytes;
}

// What a member's two headers share, from the version needed to the length of the extra field.
std::string header_fields(const std::string& name, std::uint32_t crc, std::uint64_t size) {
  std::string fields;
  put(fields, 20, 2);         // version needed
  put(fields, 0, 2);          // flags
  put(fields, kStored, 2);
  put(fields, 0, 2);          // time
  put(fields, 0x21, 2);       // 1980-01-01, the format's first day
  put(fields, crc, 4);
  put(fields, size, 4);
  put(fields, size, 4);
  put(fields, name.size(), 2);
  put(fields, 0, 2);          // extra field
  return fields;
}

}  // namespace

void NpzFile::fail(const std::string& what) const { throw Error(ErrorCode::kCorrupt, path_ + ": " + what); }

NpzFile::NpzFile(const std::string& path) : path_(path), file_(path) {
  const auto bytes = file_.bytes();
  // The end record is last, before a comment of at most 65,535 bytes whose length it states.
  std::size_t end = bytes.size();
  for (std::size_t at = bytes.size() < kEndBytes ? 0 : bytes.size() - kEndBytes + 1; at-- > 0;) {
    const std::size_t comment = bytes.size() - at - kEndBytes;
    if (comment > std::numeric_limits<std::uint16_t>::max()) break;
    if (u32(bytes.data() + at) == kEndSignature && u16(bytes.data() + at + 20) == comment) {
      end = at;
      break;
    }
  }
  if (end == bytes.size()) fail("expected a zip archive's end record, found none; truncated, or not an .npz file");
  const std::byte* record = bytes.data() + end;
  const std::uint64_t count = u16(record + 10), directory_size = u32(record + 12);
  directory_offset_ = u32(record + 16);
  if (u16(record + 4) != 0 || u16(record + 6) != 0 || u16(record + 8) != count ||
      directory_offset_ + directory_size != end) {
    fail("end record: expected one directory that ends at byte " + std::to_string(end) + ", found one of " +
         std::to_string(directory_size) + " bytes at " + std::to_string(directory_offset_));
  }
  std::uint64_t at = directory_offset_;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::string which = "directory entry " + std::to_string(i);
    if (end - at < kDirectoryBytes || u32(bytes.data() + at) != kDirectorySignature) {
      fail(which + ": expected an entry's signature, found another");
    }
    const std::byte* entry = bytes.data() + at;
    const std::uint16_t flags = u16(entry + 8);
    const std::size_t name_size = u16(entry + 28), extra_size = u16(entry + 30), comment_size = u16(entry + 32);
    if (end - at < kDirectoryBytes + name_size + extra_size + comment_size) {
      fail(which + ": expected to end within the directory, found it longer");
    }
    Member member;
    member.name.assign(reinterpret_cast<const char*>(entry + kDirectoryBytes), name_size);
    member.method = u16(entry + 10);
    member.crc = u32(entry + 16);
    member.compressed = u32(entry + 20);
    member.size = u32(entry + 24);
    member.header_offset = u32(entry + 42);
    // Sizes that don't fit 32 bits stand in extra field 1, in this order.
    const std::byte* extra = entry + kDirectoryBytes + name_size;
    for (std::size_t e = 0; e + 4 <= extra_size;) {
      const std::size_t size = u16(extra + e + 2);
      if (e + 4 + size > extra_size) fail(which + ": extra field: expected to end within the entry, found it longer");
      if (u16(extra + e) == 1) {
        std::size_t used = 0;
        for (std::uint64_t* field : {&member.size, &member.compressed, &member.header_offset}) {
          if (*field != 0xFFFFFFFF || used + 8 > size) continue;
          *field = little_endian(extra + e + 4 + used, 8);
          used += 8;
        }
      }
      e += 4 + size;
    }
    const std::string where = "member \"" + member.name + "\": ";
    if ((flags & 1) != 0) fail(where + "expected one that is not encrypted, found an encrypted one");
    if (member.method != kStored && member.method != kDeflated) {
      fail(where + "compression: expected stored (0) or deflated (8), found " + std::to_string(member.method));
    }
    if (member.header_offset >= directory_offset_ || member.compressed > directory_offset_ ||
        (member.method == kStored && member.size != member.compressed) ||
        member.size > member.compressed * kMaxDeflateRatio + kMaxDeflateRatio) {
      fail(where + "size: expected one that its " + std::to_string(member.compressed) + " stored bytes can hold, found " +
           std::to_string(member.size));
    }
    std::string key = member.name;
    if (key.ends_with(kSuffix)) key.resize(key.size() - std::strlen(kSuffix));
    if (!members_.emplace(key, member).second) fail(where + "expected a name of its own, found it twice");
    at += kDirectoryBytes + name_size + extra_size + comment_size;
  }
  if (at != end) fail("directory: expected " + std::to_string(count) + " entries to fill it, found more bytes");
}

std::vector<std::string> NpzFile::keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, member] : members_) keys.push_back(key);
  return keys;
}

std::string NpzFile::content(const std::string& key, const Member& member) const {
  const std::string where = "key `" + key + "`: ";
  const auto bytes = file_.bytes();
  const std::byte* header = bytes.data() + member.header_offset;
  if (directory_offset_ - member.header_offset < kLocalBytes || u32(header) != kLocalSignature) {
    fail(where + "expected a member's header at byte " + std::to_string(member.header_offset) + ", found none");
  }
  const std::size_t name_size = u16(header + 26), extra_size = u16(header + 28);
  const std::uint64_t begin = member.header_offset + kLocalBytes + name_size + extra_size;
  if (begin > directory_offset_ || directory_offset_ - begin < member.compressed ||
      std::string_view(reinterpret_cast<const char*>(header + kLocalBytes), name_size) != member.name ||
      u16(header + 8) != member.method) {
    fail(where + "expected the member's header to agree with the directory, found another name, method or end");
  }
  const std::byte* data = bytes.data() + begin;
  std::string content(member.size, '\0');
  if (member.method == kStored) {
    std::memcpy(content.data(), data, member.size);
  } else {
    z_stream stream{};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw Error(ErrorCode::kInternal, "zlib: inflateInit2 failed");
    // zlib counts in 32 bits: feed both ends in pieces.
    constexpr std::uint64_t kPiece = 1u << 30;
    std::uint64_t read = 0, written = 0;
    int status = Z_OK;
    while (status == Z_OK) {
      const std::uint64_t in = std::min(kPiece, member.compressed - read), out = std::min(kPiece, member.size - written);
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(data + read));
      stream.avail_in = static_cast<uInt>(in);
      stream.next_out = reinterpret_cast<Bytef*>(content.data() + written);
      stream.avail_out = static_cast<uInt>(out);
      status = inflate(&stream, Z_NO_FLUSH);
      read += in - stream.avail_in;
      written += out - stream.avail_out;
    }
    inflateEnd(&stream);
    if (status != Z_STREAM_END || written != member.size || read != member.compressed) {
      fail(where + "expected " + std::to_string(member.size) + " bytes when inflated, found damaged or other data");
    }
  }
  if (const std::uint32_t crc = crc_of(content.data(), content.size()); crc != member.crc) {
    fail(where + "check sum: expected " + std::to_string(member.crc) + ", found " + std::to_string(crc));
  }
  return content;
}

NpyArray NpzFile::array(const std::string& key) const {
  const auto found = members_.find(key);
  if (found == members_.end()) {
    std::string list;
    for (const std::string& other : keys()) list += (list.empty() ? "" : ", ") + other;
    fail("key `" + key + "`: expected to be there, found " + (list.empty() ? "an empty archive" : "only " + list));
  }
  const std::string where = "key `" + key + "`: ";
  const std::string bytes = content(key, found->second);
  const auto* raw = reinterpret_cast<const std::byte*>(bytes.data());
  if (bytes.size() < 10 || !bytes.starts_with(kMagic)) fail(where + "expected an array in .npy format, found another");
  const unsigned version = std::to_integer<unsigned>(raw[6]);
  if (version < 1 || version > 3 || bytes[7] != 0) {
    fail(where + "format version: expected 1.0, 2.0 or 3.0, found " + std::to_string(version) + "." +
         std::to_string(std::to_integer<unsigned>(raw[7])));
  }
  const std::size_t length_bytes = version == 1 ? 2 : 4;
  const std::uint64_t begin = 8 + length_bytes;
  const std::uint64_t length = bytes.size() < begin ? 0 : little_endian(raw + 8, length_bytes);
  if (bytes.size() < begin || bytes.size() - begin < length) {
    fail(where + "header: expected within " + std::to_string(bytes.size()) + " bytes, found " + std::to_string(length) +
         "; truncated");
  }
  NpyHeader header;
  try {
    header = LiteralReader(std::string_view(bytes).substr(begin, length)).read();
  } catch (const Expected& expected) {
    fail(where + "header: expected " + expected.what + ", found " + bytes.substr(begin, std::min<std::uint64_t>(length, 120)));
  }
  if (header.descr != "<f4" && header.descr != "<f8") {
    fail(where + "type: expected '<f4' or '<f8', found " + header.descr +
         (header.descr.find('O') != std::string::npos ? " (Python objects are never read)" : ""));
  }
  const std::size_t size = header.descr == "<f4" ? sizeof(float) : sizeof(double);
  const auto count = product(header.shape);
  const std::uint64_t stored = bytes.size() - begin - length;
  if (!count || *count > stored / size || *count * size != stored) {
    fail(where + "expected " + (count ? std::to_string(*count) : "fewer than 2^64") + " numbers of " + std::to_string(size) +
         " bytes for shape " + shape_text(header.shape) + ", found " + std::to_string(stored) + " bytes");
  }
  const char* data = bytes.data() + begin + length;
  NpyArray array{header.shape, size == sizeof(float) ? numbers_of<float>(data, *count) : numbers_of<double>(data, *count)};
  if (header.is_fortran && array.shape.size() > 1) array.values = to_c_order(array.values, array.shape);
  return array;
}

std::string write_npz(const std::string& path, const std::vector<std::pair<std::string, NpyArray>>& arrays) {
  DurableFile file(path);
  Sha256 hash;
  std::uint64_t position = 0;
  const auto emit = [&](const std::string& text) {
    file.write(text);
    hash.update(text.data(), text.size());
    position += text.size();
    if (position > std::numeric_limits<std::uint32_t>::max()) {
      throw Error(ErrorCode::kUsage, path + ": expected less than 4 GB of arrays, found more");
    }
  };
  std::string directory;
  for (const auto& [key, array] : arrays) {
    const std::string name = key + kSuffix;
    const std::string bytes = npy_bytes(path + ": key `" + key + "`", array);
    const std::string fields = header_fields(name, crc_of(bytes.data(), bytes.size()), bytes.size());
    put(directory, kDirectorySignature, 4);
    put(directory, 20, 2);  // made by: version 2.0
    directory += fields;
    directory.append(10, '\0');  // no comment, first disk, no attributes
    put(directory, position, 4);
    directory += name;
    std::string header;
    put(header, kLocalSignature, 4);
    emit(header + fields + name);
    emit(bytes);
  }
  const std::uint64_t directory_offset = position, count = arrays.size();
  emit(directory);
  std::string end;
  put(end, kEndSignature, 4);
  put(end, 0, 4);
  put(end, count, 2);
  put(end, count, 2);
  put(end, directory.size(), 4);
  put(end, directory_offset, 4);
  put(end, 0, 2);
  emit(end);
  file.commit();
  return hash.finish();
}

}  // namespace onestep
