#include "common/npz_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "common/durable_file.h"
#include "common/hash.h"
#include "support/files.h"
#include "support/parity.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kGolden = ONESTEP_SOURCE_DIR "/tests/golden/";

void expect_mu_and_sigma(const std::string& path, double mu_tolerance) {
  const NpzFile file(path);
  EXPECT_THAT(file.keys(), ElementsAre("mu", "sigma"));
  const NpyArray mu = file.array("mu"), sigma = file.array("sigma");
  EXPECT_THAT(mu.shape, ElementsAre(3));
  EXPECT_THAT(sigma.shape, ElementsAre(3, 3));
  const auto versions = nlohmann::json::parse(read_file(kGolden + "metrics.json")).at("versions");
  ParityRow row({"npz", versions_of(versions, {"numpy"}), path.substr(kGolden.size()), kAbsolute, "none: a file"});
  for (std::size_t i = 0; i < 3; ++i) row.forward(std::abs(mu.values.at(i) - static_cast<double>(i) / 7), mu_tolerance, "mu");
  for (std::size_t i = 0; i < 9; ++i) EXPECT_EQ(sigma.values.at(i), static_cast<double>(i) / 11);
}

// numpy.savez: stored, fp64, C order.
TEST(NpzFile, ReadsWhatNumpyStores) { expect_mu_and_sigma(kGolden + "npz_stored.npz", 0); }

// numpy.savez_compressed: deflated; mu in fp32, sigma in Fortran order.
TEST(NpzFile, ReadsWhatNumpyDeflates) { expect_mu_and_sigma(kGolden + "npz_deflated.npz", 2e-8); }

TEST(NpzFile, ReadsHeadersOfVersion2) {
  EXPECT_EQ(NpzFile(kGolden + "npz_version2.npz").array("mu").values.at(2), 2.0 / 7);
}

TEST(NpzFile, ObjectsAndOtherTypesAreRefused) {
  const NpzFile file(kGolden + "npz_object.npz");
  const auto message = [&](const char* key) {
    const auto error = error_of([&] { static_cast<void>(file.array(key)); });
    return error ? error->message : "no error";
  };
  EXPECT_THAT(message("mu"), HasSubstr("npz_object.npz: key `mu`: type: expected '<f4' or '<f8', found |O (Python objects"));
  EXPECT_THAT(message("big"), HasSubstr("key `big`: type: expected '<f4' or '<f8', found >f8"));
  EXPECT_THAT(message("whole"), HasSubstr("found <i8"));
  EXPECT_THAT(message("none"), HasSubstr("key `none`: expected to be there, found only big, mu, sigma, whole"));
  EXPECT_EQ(message("sigma"), "no error");
}

TEST(NpzFile, WhatWasWrittenComesBack) {
  const TempFolder folder;
  const NpyArray scalar{{}, {0.1}}, empty{{0, 3}, {}}, matrix{{2, 3}, {1, 2, 3, 4, 5, 1e-300}};
  const std::string digest = write_npz(folder / "a.npz", {{"scalar", scalar}, {"empty", empty}, {"matrix", matrix}});
  EXPECT_EQ(digest, sha256_file(folder / "a.npz"));
  const NpzFile file(folder / "a.npz");
  for (const auto& [key, expected] : {std::pair{"scalar", scalar}, {"empty", empty}, {"matrix", matrix}}) {
    EXPECT_EQ(file.array(key).shape, expected.shape) << key;
    EXPECT_EQ(file.array(key).values, expected.values) << key;
  }
  write_npz(folder / "b.npz", {{"scalar", scalar}, {"empty", empty}, {"matrix", matrix}});
  EXPECT_EQ(slurp(folder / "a.npz"), slurp(folder / "b.npz"));
  EXPECT_TRUE(error_of([&] { write_npz(folder / "c.npz", {{"x", NpyArray{{2}, {1}}}}); }));
  EXPECT_FALSE(std::filesystem::exists(folder / "c.npz"));
}

// Every file cut short, and every flipped bit, is an error or gives the very numbers (a bit of a time or of an attribute).
TEST(NpzFile, DamageIsAnErrorOrHarmless) {
  const TempFolder folder(in_memory_parent());
  for (const char* name : {"npz_stored.npz", "npz_deflated.npz"}) {
    const std::string content = slurp(kGolden + name);
    const NpyArray mu = NpzFile(kGolden + name).array("mu");
    int refused = 0;
    const auto attempt = [&](const std::string& damaged) {
      spit(folder / "x.npz", damaged);
      const auto error = error_of([&] {
        const NpzFile file(folder / "x.npz");
        EXPECT_EQ(file.array("mu").values, mu.values);
        static_cast<void>(file.array("sigma"));
      });
      if (!error) return;
      ++refused;
      EXPECT_EQ(error->code, ErrorCode::kCorrupt);
      EXPECT_THAT(error->message, HasSubstr("x.npz: "));
    };
    for (std::size_t size = 0; size < content.size(); ++size) attempt(content.substr(0, size));
    EXPECT_EQ(refused, static_cast<int>(content.size()));
    refused = 0;
    for (std::size_t bit = 0; bit < 8 * content.size(); bit += 3) attempt(with_flipped_bit(content, bit));
    EXPECT_GT(refused, static_cast<int>(content.size()));  // of 8/3 a byte
  }
}

std::string npy(const std::string& header, const std::string& data) {
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() & 0xFF);
  bytes += static_cast<char>(header.size() >> 8);
  return bytes + header + data;
}

// An archive of one stored member, its check sum taken from write_npz by way of zlib's own: the header is what is wrong.
std::string message_of_header(const std::string& header, std::size_t data_bytes) {
  const TempFolder folder;
  const std::string member = npy(header, std::string(data_bytes, '\0'));
  // CRC-32, bit by bit.
  std::uint32_t crc = 0xFFFFFFFFu;
  for (const char c : member) {
    crc ^= static_cast<unsigned char>(c);
    for (int i = 0; i < 8; ++i) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xEDB88320u : 0u);
  }
  crc = ~crc;
  const auto number = [](std::uint64_t value, int bytes) {
    std::string text;
    for (int i = 0; i < bytes; ++i) text += static_cast<char>((value >> (8 * i)) & 0xFF);
    return text;
  };
  const std::string fields = number(20, 2) + number(0, 8) + number(crc, 4) + number(member.size(), 4) +
                             number(member.size(), 4) + number(5, 2) + number(0, 2);
  const std::string local = number(0x04034b50, 4) + fields + "x.npy" + member;
  const std::string directory = number(0x02014b50, 4) + number(20, 2) + fields + std::string(14, '\0') + "x.npy";
  spit(folder / "x.npz", local + directory + number(0x06054b50, 4) + number(0, 4) + number(1, 2) + number(1, 2) +
                             number(directory.size(), 4) + number(local.size(), 4) + number(0, 2));
  const auto error = error_of([&] { static_cast<void>(NpzFile(folder / "x.npz").array("x")); });
  return error ? error->message : "no error";
}

TEST(NpzFile, HeadersAreReadStrictly) {
  EXPECT_EQ(message_of_header("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }\n", 16), "no error");
  EXPECT_EQ(message_of_header("{\"shape\":(2),\"fortran_order\":True,\"descr\":\"<f8\"}", 16), "no error");
  EXPECT_THAT(message_of_header("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }", 16),
              HasSubstr("expected 3 numbers of 8 bytes for shape (3,), found 16 bytes"));
  EXPECT_THAT(message_of_header("{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", 16),
              HasSubstr("expected fewer than 2^64 numbers"));
  EXPECT_THAT(message_of_header("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (2,), }", 16),
              HasSubstr("found a structured type"));
  for (const char* header :
       {"", "{}", "{'descr': '<f8'}", "{'descr': '<f8', 'descr': '<f8', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<f8', 'fortran_order': 0, 'shape': (2,)}", "{'descr': '<f8', 'fortran_order': False, 'shape': (-2,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)} x", "{'descr': '<f8', 'fortran_order': False, 'shape': (2",
        "{'descr': '<f8, 'fortran_order': False, 'shape': (2,)}", "{'order': 1, 'fortran_order': False, 'shape': (2,)}",
        "__import__('os').system('true')"}) {
    EXPECT_THAT(message_of_header(header, 16), HasSubstr("key `x`: header: expected ")) << header;
  }
}

TEST(NpzFile, OtherFilesAreRefused) {
  const TempFolder folder;
  EXPECT_EQ(error_of([&] { NpzFile(folder / "none.npz"); })->code, ErrorCode::kNotFound);
  spit(folder / "text.npz", std::string(200, 'x'));
  EXPECT_THAT(error_of([&] { NpzFile(folder / "text.npz"); })->message, HasSubstr("expected a zip archive's end record"));
}

}  // namespace
}  // namespace onestep
