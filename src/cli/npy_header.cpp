#include "cli/npy_header.h"

#include <cstring>
#include <optional>
#include <regex>

#include "common/error.h"

namespace onestep {
namespace {

constexpr char kMagic[] = "\x93NUMPY";
constexpr std::size_t kMagicBytes = 6;
constexpr std::size_t kMaxHeader = 4096;  // NumPy writes one of 118 bytes for every plain array

std::optional<std::uint64_t> data_bytes(const NpyHeader& header, std::uint64_t item) {
  for (const std::int64_t size : header.shape) {
    if (__builtin_mul_overflow(item, static_cast<std::uint64_t>(size), &item)) return {};
  }
  return item;
}

}  // namespace

NpyHeader read_npy_header(std::span<const std::byte> file, const std::string& where) {
  const auto fail = [&](const std::string& what) -> void {
    throw Error(ErrorCode::kCorrupt, where + ": " + what);
  };
  if (file.size() < 10 || std::memcmp(file.data(), kMagic, kMagicBytes) != 0)
    fail("expected a NumPy array, found another signature");
  const auto byte = [&](std::size_t i) { return std::to_integer<std::uint64_t>(file[i]); };
  const std::uint64_t major = byte(6);
  if (major < 1 || major > 3) fail("version: expected 1 to 3, found " + std::to_string(major));
  const std::size_t length_bytes = major == 1 ? 2 : 4;
  if (file.size() < 8 + length_bytes)
    fail("expected the header's length, found the end of the file");
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < length_bytes; ++i) length |= byte(8 + i) << (8 * i);
  const std::size_t begin = 8 + length_bytes;
  if (length > kMaxHeader || length > file.size() - begin) {
    fail("header length: expected at most " +
         std::to_string(std::min(kMaxHeader, file.size() - begin)) + ", found " +
         std::to_string(length));
  }
  const std::string text(reinterpret_cast<const char*>(file.data()) + begin, length);
  static const std::regex kHeader(
      R"re(\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\), ?\}\s*)re");
  std::smatch match;
  if (!std::regex_match(text, match, kHeader))
    fail("header: expected descr, fortran_order and shape, found " + text.substr(0, 120));
  NpyHeader header{match[1], match[2] == "True", {}};
  const std::string shape = match[3];
  static const std::regex kNumber(R"(\d+)");
  for (std::sregex_iterator it(shape.begin(), shape.end(), kNumber), end; it != end; ++it) {
    header.shape.push_back(std::stoll(it->str()));
  }
  static const std::regex kPlain(R"([<>|=]?([biufcSU])(\d{1,6}))");
  std::smatch type;
  if (!std::regex_match(header.dtype, type, kPlain))
    fail("descr: expected a plain type, found '" + header.dtype +
         "' (arrays of objects are pickles)");
  const std::uint64_t item = std::stoull(type[2]) * (type[1] == "U" ? 4 : 1);
  const auto expected = data_bytes(header, item);
  const std::uint64_t found = file.size() - begin - length;
  if (!expected || *expected != found) {
    fail("data: expected " + (expected ? std::to_string(*expected) : "fewer than 2^64") +
         " bytes, found " + std::to_string(found));
  }
  return header;
}

}  // namespace onestep
