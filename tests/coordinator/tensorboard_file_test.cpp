// Reads back what was written, by the format's own description: records with checksums, messages field by field.
#include "coordinator/tensorboard_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <stdexcept>

namespace onestep {
namespace {

using testing::ElementsAre;

template <class Value>
Value fixed_at(const std::string& bytes, std::size_t at) {
  Value value{};
  if (at + sizeof value > bytes.size()) throw std::runtime_error("cut off");
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

std::uint32_t unmasked(std::uint32_t value) {
  const std::uint32_t rotated = value - 0xa282ead8U;
  return rotated >> 17 | rotated << 15;
}

std::vector<std::string> records(const std::string& file) {
  std::vector<std::string> found;
  for (std::size_t at = 0; at < file.size();) {
    const auto length = static_cast<std::size_t>(fixed_at<std::uint64_t>(file, at));
    EXPECT_EQ(unmasked(fixed_at<std::uint32_t>(file, at + 8)), crc32c(file.substr(at, 8)));
    found.push_back(file.substr(at + 12, length));
    EXPECT_EQ(unmasked(fixed_at<std::uint32_t>(file, at + 12 + length)), crc32c(found.back()));
    at += length + 16;
  }
  return found;
}

// A message's fields by number, each as its bytes.
std::map<unsigned, std::string> fields(const std::string& message) {
  std::map<unsigned, std::string> found;
  std::size_t at = 0;
  const auto varint = [&] {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(message.at(at++));
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.size()) {
    const std::uint64_t key = varint();
    std::string& value = found[static_cast<unsigned>(key >> 3)];
    switch (key & 7) {
      case 0: value = std::to_string(varint()); break;
      case 1: value = message.substr(at, 8), at += 8; break;
      case 2: {
        const auto length = static_cast<std::size_t>(varint());
        value = message.substr(at, length), at += length;
        break;
      }
      case 5: value = message.substr(at, 4), at += 4; break;
      default: throw std::runtime_error("wire type");
    }
  }
  return found;
}

// "STEP TAG=VALUE" of an event that holds one scalar.
std::string scalar_text(const std::string& record) {
  auto event = fields(record);
  auto value = fields(fields(event.at(5)).at(1));
  char text[64];
  std::snprintf(text, sizeof text, "=%g", static_cast<double>(fixed_at<float>(value.at(2), 0)));
  return event.at(2) + " " + value.at(1) + text;
}

MetricPoint point(std::int64_t iteration, double value) {
  return {.key = "", .stage = "s", .iteration = iteration, .images = 100 * iteration, .attempt = 1, .rank = 0, .value = value};
}

TEST(TensorboardFile, ChecksumsAreCastagnolis) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);  // the check value of CRC-32C's catalogue entry
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aaU);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43U);
}

TEST(TensorboardFile, EveryFinitePointIsAScalarAtItsIteration) {
  const std::vector<MetricSeries> series = {{"loss_fake", {point(10, 0.5), point(300, 1e-3)}},
                                            {"eval.frechet", {point(300, 2.25), point(310, std::numeric_limits<double>::infinity())}}};
  const std::vector<std::string> found = records(tensorboard_file(series, {}, 1'700'000'000.5));
  ASSERT_EQ(found.size(), 6U);
  EXPECT_EQ(fields(found[0]).at(3), "brain.Event:2");
  EXPECT_EQ(fixed_at<double>(fields(found[0]).at(1), 0), 1'700'000'000.5);
  std::vector<std::string> scalars;
  for (std::size_t i = 1; i < found.size(); ++i) scalars.push_back(scalar_text(found[i]));
  EXPECT_THAT(scalars, ElementsAre("10 loss_fake=0.5", "300 loss_fake=0.001", "300 eval/frechet=2.25", "10 images=1000", "300 images=30000"));
}

TEST(TensorboardFile, PicturesAreWhole) {
  const std::string png("\x89PNG with \0 bytes", 17);
  const std::vector<std::string> found = records(tensorboard_file({}, {{300, 7.0, png, 140, 280}}, 1));
  ASSERT_EQ(found.size(), 2U);
  auto event = fields(found[1]);
  EXPECT_EQ(event.at(2), "300");
  auto value = fields(fields(event.at(5)).at(1));
  EXPECT_EQ(value.at(1), "samples");
  auto image = fields(value.at(4));
  EXPECT_EQ(image.at(1), "280");
  EXPECT_EQ(image.at(2), "140");
  EXPECT_EQ(image.at(4), png);
}

}  // namespace
}  // namespace onestep
