#include "coordinator/tensorboard_file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>

namespace onestep {
namespace {

// Little-endian, as TFRecords and protocol buffers have it.
template <class Value>
std::string fixed(Value value) {
  static_assert(std::endian::native == std::endian::little);
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

// ---- protocol buffers: a field is its number and wire type, then its value ----

enum Wire : unsigned { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

std::string key(unsigned field, Wire wire) { return varint(field << 3 | wire); }
std::string number_field(unsigned field, std::int64_t value) { return key(field, kVarint) + varint(static_cast<std::uint64_t>(value)); }
std::string double_field(unsigned field, double value) { return key(field, kFixed64) + fixed(value); }
std::string float_field(unsigned field, float value) { return key(field, kFixed32) + fixed(value); }
std::string bytes_field(unsigned field, std::string_view value) { return key(field, kBytes) + varint(value.size()).append(value); }

// ---- event.proto, summary.proto ----

std::string event(double time, std::int64_t step, const std::string& what) { return double_field(1, time) + number_field(2, step) + what; }

std::string summary(const std::string& value) { return bytes_field(5, bytes_field(1, value)); }

std::string scalar(const std::string& tag, double value) {
  return summary(bytes_field(1, tag) + float_field(2, static_cast<float>(value)));
}

std::string picture(const TensorboardPicture& from) {
  const std::string image =
      number_field(1, from.height) + number_field(2, from.width) + number_field(3, 1) + bytes_field(4, from.png);
  return summary(bytes_field(1, "samples") + bytes_field(4, image));
}

// ---- TFRecord: length, its checksum, bytes, their checksum; a checksum is rotated and moved, so that checksums of checksums differ ----

std::uint32_t masked(std::uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8U; }

std::string record(const std::string& bytes) {
  const std::string length = fixed(static_cast<std::uint64_t>(bytes.size()));
  return length + fixed(masked(crc32c(length))) + bytes + fixed(masked(crc32c(bytes)));
}

// "eval.frechet" is shown in the group "eval".
std::string tag_of(std::string name) {
  std::replace(name.begin(), name.end(), '.', '/');
  return name;
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static const std::array<std::uint32_t, 256> table = [] {
    std::array<std::uint32_t, 256> made{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      made[i] = i;
      for (int bit = 0; bit < 8; ++bit) made[i] = made[i] >> 1 ^ (made[i] & 1 ? 0x82f63b78U : 0U);
    }
    return made;
  }();
  std::uint32_t crc = ~0U;
  for (const char byte : bytes) crc = crc >> 8 ^ table[(crc ^ static_cast<unsigned char>(byte)) & 0xff];
  return ~crc;
}

std::string tensorboard_file(const std::vector<MetricSeries>& series, const std::vector<TensorboardPicture>& pictures, double time) {
  std::string file = record(double_field(1, time) + bytes_field(3, "brain.Event:2"));
  std::map<std::int64_t, std::int64_t> images;
  for (const MetricSeries& one : series) {
    const std::string tag = tag_of(one.key);
    for (const MetricPoint& point : one.points) {
      if (!std::isfinite(point.value)) continue;
      file += record(event(time, point.iteration, scalar(tag, point.value)));
      images[point.iteration] = point.images;
    }
  }
  for (const auto& [iteration, count] : images) file += record(event(time, iteration, scalar("images", static_cast<double>(count))));
  for (const TensorboardPicture& one : pictures) file += record(event(one.time, one.iteration, picture(one)));
  return file;
}

}  // namespace onestep
