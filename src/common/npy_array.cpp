#include "common/npy_array.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>
#include <set>
#include <string_view>

#include "common/error.h"
#include "common/little_endian.h"

namespace onestep {
namespace {

constexpr std::string_view kMagic("\x93NUMPY", 6);

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

}  // namespace

NpyArray decode_npy(const std::string& bytes, const std::string& where) {
  const auto fail = [&](const std::string& what) { throw Error(ErrorCode::kCorrupt, where + what); };
  const auto* raw = reinterpret_cast<const std::byte*>(bytes.data());
  if (bytes.size() < 10 || !bytes.starts_with(kMagic)) fail("expected an array in .npy format, found another");
  const unsigned version = std::to_integer<unsigned>(raw[6]);
  if (version < 1 || version > 3 || bytes[7] != 0) {
    fail("format version: expected 1.0, 2.0 or 3.0, found " + std::to_string(version) + "." +
         std::to_string(std::to_integer<unsigned>(raw[7])));
  }
  const std::size_t length_bytes = version == 1 ? 2 : 4;
  const std::uint64_t begin = 8 + length_bytes;
  const std::uint64_t length = bytes.size() < begin ? 0 : little_endian(raw + 8, length_bytes);
  if (bytes.size() < begin || bytes.size() - begin < length) {
    fail("header: expected within " + std::to_string(bytes.size()) + " bytes, found " + std::to_string(length) +
         "; truncated");
  }
  NpyHeader header;
  try {
    header = LiteralReader(std::string_view(bytes).substr(begin, length)).read();
  } catch (const Expected& expected) {
    fail("header: expected " + expected.what + ", found " + bytes.substr(begin, std::min<std::uint64_t>(length, 120)));
  }
  if (header.descr != "<f4" && header.descr != "<f8") {
    fail("type: expected '<f4' or '<f8', found " + header.descr +
         (header.descr.find('O') != std::string::npos ? " (Python objects are never read)" : ""));
  }
  const std::size_t size = header.descr == "<f4" ? sizeof(float) : sizeof(double);
  const auto count = product(header.shape);
  const std::uint64_t stored = bytes.size() - begin - length;
  if (!count || *count > stored / size || *count * size != stored) {
    fail("expected " + (count ? std::to_string(*count) : "fewer than 2^64") + " numbers of " + std::to_string(size) +
         " bytes for shape " + shape_text(header.shape) + ", found " + std::to_string(stored) + " bytes");
  }
  const char* data = bytes.data() + begin + length;
  NpyArray array{header.shape, size == sizeof(float) ? numbers_of<float>(data, *count) : numbers_of<double>(data, *count)};
  if (header.is_fortran && array.shape.size() > 1) array.values = to_c_order(array.values, array.shape);
  return array;
}

std::string encode_npy(const NpyArray& array, const std::string& where) {
  const auto count = product(array.shape);
  if (!count || *count != array.values.size()) {
    throw Error(ErrorCode::kUsage, where + "expected values for shape " + shape_text(array.shape) + ", found " +
                                       std::to_string(array.values.size()));
  }
  std::string header = "{'descr': '<f8', 'fortran_order': False, 'shape': " + shape_text(array.shape) + ", }";
  constexpr std::size_t kAlignment = 64, kPrefix = 10;
  header.append(kAlignment - 1 - (kPrefix + header.size()) % kAlignment, ' ');
  header += '\n';
  std::string bytes(kMagic);
  put_little_endian(bytes, 1, 2);  // version 1.0
  put_little_endian(bytes, header.size(), 2);
  bytes += header;
  bytes.append(reinterpret_cast<const char*>(array.values.data()), array.values.size() * sizeof(double));
  return bytes;
}

}  // namespace onestep
