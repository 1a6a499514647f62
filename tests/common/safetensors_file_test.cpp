#include "common/safetensors_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "common/error.h"
#include "common/hash.h"
#include "support/files.h"
#include "support/parity.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

// Memory for three small tensors and views of it.
struct Sample {
  std::vector<float> weight{1, 2, 3, 4, 5, 6};
  std::vector<std::int64_t> count{7};
  std::vector<std::uint8_t> flags{8, 9, 10};

  template <typename T>
  static std::span<const std::byte> bytes(const std::vector<T>& values) {
    return std::as_bytes(std::span<const T>(values));
  }
  [[nodiscard]] std::vector<TensorView> views() const {
    return {{"a.flags", DType::kU8, {3}, bytes(flags)},
            {"b.weight", DType::kF32, {2, 3}, bytes(weight)},
            {"c.count", DType::kI64, {}, bytes(count)}};
  }
};

std::string length_prefix(std::uint64_t length) {
  std::string text(8, '\0');
  std::memcpy(text.data(), &length, 8);
  return text;
}

std::string file_of(const std::string& header, const std::string& data) {
  return length_prefix(header.size()) + header + data;
}

std::optional<CaughtError> refusal_of(const std::string& content) {
  const TempFolder folder(in_memory_parent());
  spit(folder / "model.safetensors", content);
  return error_of([&] { SafetensorsFile file(folder / "model.safetensors"); });
}

void expect_refused(const std::string& content, const std::string& part) {
  const auto error = refusal_of(content);
  ASSERT_TRUE(error) << "accepted: " << part;
  EXPECT_EQ(error->code, ErrorCode::kCorrupt);
  EXPECT_NE(error->message.find("model.safetensors"), std::string::npos) << error->message;
  EXPECT_NE(error->message.find(part), std::string::npos) << error->message;
}

// What holds of every file that was accepted: shapes agree with bytes, and the views tile the data.
void expect_consistent(const SafetensorsFile& file, std::size_t data_bytes) {
  std::size_t total = 0;
  for (const TensorView& tensor : file.tensors()) {
    total += tensor.bytes.size();
    std::size_t elements = 1;
    for (const std::int64_t dimension : tensor.shape)
      elements *= static_cast<std::size_t>(dimension);
    EXPECT_EQ(elements * bits_of(tensor.dtype), 8 * tensor.bytes.size());
  }
  EXPECT_EQ(total, data_bytes);
}

TEST(SafetensorsFile, ReadsBackWhatWasWritten) {
  const TempFolder folder;
  const Sample sample;
  write_safetensors(folder / "model.safetensors", sample.views(), {{"step", "17"}});
  SafetensorsFile opened(folder / "model.safetensors");
  const SafetensorsFile file = std::move(opened);
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.tensors()[0].name, "a.flags");
  EXPECT_EQ(file.metadata(), (Metadata{{"format", "pt"}, {"step", "17"}}));
  const TensorView& weight = file.at("b.weight");
  EXPECT_EQ(weight.shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(std::memcmp(weight.bytes.data(), sample.weight.data(), 24), 0);
  EXPECT_TRUE(file.at("c.count").shape.empty());
  EXPECT_EQ(file.find("d"), nullptr);
  EXPECT_EQ(error_of([&] { static_cast<void>(file.at("d")); })->code, ErrorCode::kCorrupt);
}

// The format's published layout, byte for byte: wide dtypes first, then names; the header padded to
// a multiple of 8.
TEST(SafetensorsFile, ExactBytes) {
  const TempFolder folder;
  const Sample sample;
  write_safetensors(folder / "file", sample.views(), {});
  std::string header =
      R"({"__metadata__":{"format":"pt"},"c.count":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
      R"("b.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]},)"
      R"("a.flags":{"dtype":"U8","shape":[3],"data_offsets":[32,35]}})";
  header.append((8 - header.size() % 8) % 8, ' ');
  const std::string content = slurp(folder / "file");
  EXPECT_EQ(content.substr(0, 8 + header.size()), length_prefix(header.size()) + header);
  EXPECT_EQ(content.size(), 8 + header.size() + 35);
  EXPECT_EQ((8 + header.size()) % 8, 0u);
  EXPECT_EQ(safetensors_header(sample.views(), {}), length_prefix(header.size()) + header);
}

TEST(SafetensorsFile, DigestIsTheFilesAndOrderOfTheListIsNone) {
  const TempFolder folder;
  const Sample sample;
  auto views = sample.views();
  const std::string digest = write_safetensors(folder / "one", views, {{"k", "v"}});
  std::swap(views[0], views[2]);
  EXPECT_EQ(write_safetensors(folder / "two", views, {{"k", "v"}}), digest);
  EXPECT_EQ(safetensors_sha256(views, {{"k", "v"}}), digest);
  EXPECT_EQ(sha256(slurp(folder / "one")), digest);
  EXPECT_NE(safetensors_sha256(views, {{"k", "w"}}), digest);
}

TEST(SafetensorsFile, NothingAndEmptyTensorsAreValid) {
  const TempFolder folder;
  write_safetensors(folder / "none", {}, {});
  EXPECT_TRUE(SafetensorsFile(folder / "none").tensors().empty());
  write_safetensors(folder / "empty", {{"e", DType::kF32, {0, 5}, {}}, {"f", DType::kF32, {0}, {}}},
                    {});
  EXPECT_EQ(SafetensorsFile(folder / "empty").at("e").shape, (std::vector<std::int64_t>{0, 5}));
}

TEST(SafetensorsFile, RefusesToWriteWhatDoesNotFit) {
  const TempFolder folder;
  const Sample sample;
  const auto weight = Sample::bytes(sample.weight);
  const std::vector<std::vector<TensorView>> wrong{
      {{"a", DType::kF32, {6}, weight}, {"a", DType::kF32, {6}, weight}},
      {{"a", DType::kF32, {7}, weight}},
      {{"a", DType::kF32, {-6}, weight}},
      {{"a", DType::kF32, {std::int64_t{1} << 62, 4}, {}}},
      {{"__metadata__", DType::kF32, {6}, weight}},
      {{"a", DType::kF4, {6}, weight}},
      {{"a", DType::kF6E2M3, {3}, weight}},
      {{"\xff", DType::kF32, {6}, weight}},
  };
  for (const auto& views : wrong) {
    const auto error = error_of([&] { write_safetensors(folder / "file", views, {}); });
    ASSERT_TRUE(error) << views.front().name;
    EXPECT_EQ(error->code, ErrorCode::kUsage);
    EXPECT_TRUE(names_in(folder.path()).empty());
  }
}

TEST(SafetensorsFile, EveryNthCallFailedLeavesTheOldFileOrTheNew) {
  const TempFolder folder;
  const Sample sample;
  const std::string path = folder / "model.safetensors";
  const std::string old_digest = write_safetensors(path, {}, {});
  const std::string before = slurp(path);
  const std::string new_digest = safetensors_sha256(sample.views(), {});
  int num_calls = 0;
  {
    const FailNthCall count(0, 0);
    write_safetensors(folder / "other", sample.views(), {});
    num_calls = count.calls();
  }
  std::filesystem::remove(folder / "other");
  ASSERT_GE(num_calls, 8);
  for (int nth = 1; nth <= num_calls; ++nth) {
    spit(path, before);
    const auto error = error_of([&] {
      const FailNthCall fail(nth, ENOSPC);
      write_safetensors(path, sample.views(), {});
    });
    ASSERT_TRUE(error) << "call " << nth;
    EXPECT_EQ(error->code, ErrorCode::kIo);
    EXPECT_NE(error->message.find("No space left on device"), std::string::npos);
    const std::string digest = sha256(slurp(path));
    EXPECT_TRUE(digest == old_digest || digest == new_digest) << "call " << nth;
    EXPECT_EQ(names_in(folder.path()).size(), 1u) << "call " << nth;
  }
}

TEST(SafetensorsFile, TruncatedAtEveryLengthIsRefused) {
  const TempFolder folder;
  const Sample sample;
  write_safetensors(folder / "file", sample.views(), {});
  const std::string content = slurp(folder / "file");
  for (std::size_t length = 0; length < content.size(); ++length) {
    const auto error = refusal_of(content.substr(0, length));
    ASSERT_TRUE(error) << "length " << length;
    EXPECT_EQ(error->code, ErrorCode::kCorrupt);
  }
  EXPECT_FALSE(refusal_of(content));
  EXPECT_TRUE(refusal_of(content + "x"));
}

TEST(SafetensorsFile, EveryFlippedHeaderBitIsRefusedOrConsistent) {
  const TempFolder folder(in_memory_parent());
  const Sample sample;
  write_safetensors(folder / "file", sample.views(), {{"step", "17"}});
  const std::string content = slurp(folder / "file");
  const std::size_t header_bytes = content.size() - 35;
  int refused = 0;
  for (std::size_t bit = 0; bit < 8 * header_bytes; ++bit) {
    spit(folder / "file", with_flipped_bit(content, bit));
    const auto error = error_of([&] { expect_consistent(SafetensorsFile(folder / "file"), 35); });
    if (!error) continue;  // a letter of a name or of a metadata value
    ++refused;
    EXPECT_EQ(error->code, ErrorCode::kCorrupt) << "bit " << bit << ": " << error->message;
  }
  EXPECT_GT(refused, static_cast<int>(4 * header_bytes));
}

TEST(SafetensorsFile, ForeignFilesAreRefused) {
  expect_refused("", "8 bytes");
  expect_refused("{\"a\": 1}", "header length");
  expect_refused(std::string("\x89HDF\r\n\x1a\n", 8) + std::string(100, '\0'), "header length");
  expect_refused(std::string("PK\x03\x04", 4) + std::string(100, '\0'), "header length");
  expect_refused(length_prefix(~std::uint64_t{0}) + "{}", "header length");
  expect_refused(length_prefix(100'000'001) + "{}", "header length");
  expect_refused(file_of("", ""), "'{'");
  expect_refused(file_of(" {}", ""), "'{'");
  expect_refused(file_of("\xef\xbb\xbf{}", ""), "'{'");
  expect_refused(file_of(std::string("{}\0{}", 5), ""), "NUL");
  expect_refused(file_of("{]", ""), "model.safetensors");
  expect_refused(file_of("{\"\xff\":{}}", ""), "model.safetensors");
}

struct WrongHeader {
  const char* header;
  const char* part;  // of the message
};

// Each with 8 bytes of data.
class WrongHeaderTest : public testing::TestWithParam<WrongHeader> {};

TEST_P(WrongHeaderTest, IsRefusedByName) {
  expect_refused(file_of(GetParam().header, std::string(8, 'd')), GetParam().part);
}

INSTANTIATE_TEST_SUITE_P(
    SafetensorsFile, WrongHeaderTest,
    testing::Values(
        WrongHeader{
            R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
            "a"},
        WrongHeader{R"({"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
                    "dtype"},
        WrongHeader{R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", "F31"},
        WrongHeader{R"({"a":{"dtype":7,"shape":[2],"data_offsets":[0,8]}})", "dtype"},
        WrongHeader{R"({"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})", "shape"},
        WrongHeader{R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", "shape"},
        WrongHeader{R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", "shape"},
        WrongHeader{R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})",
                    "expected 12 bytes"},
        WrongHeader{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", "data_offsets"},
        WrongHeader{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,16]}})", "data_offsets"},
        WrongHeader{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":"0-8"}})", "data_offsets"},
        WrongHeader{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,-8]}})", "data_offsets"},
        WrongHeader{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", "begin at 0"},
        WrongHeader{R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                    "expected 4 bytes"},
        WrongHeader{R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})", "truncated"},
        WrongHeader{
            R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
            "begin at 4"},
        WrongHeader{
            R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
            "begin at 2"},
        WrongHeader{
            R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,8]}})",
            "2^61"},
        WrongHeader{
            R"({"a":{"dtype":"F32","shape":[9223372036854775807,9223372036854775807,0],"data_offsets":[0,8]}})",
            "2^61"},
        WrongHeader{R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]}})",
                    "2^63"},
        WrongHeader{R"({"a":{"dtype":"F4","shape":[15],"data_offsets":[0,8]}})",
                    "whole number of bytes"},
        WrongHeader{R"({"a":{"dtype":"F32","shape":[2]}})", "data_offsets"},
        WrongHeader{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}})", "more"},
        WrongHeader{R"({"a":[],"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "\"a\""},
        WrongHeader{
            R"({"__metadata__":{"k":1},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
            "__metadata__/k"},
        WrongHeader{R"({"__metadata__":[],"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
                    "__metadata__"},
        WrongHeader{"{}", "data: expected 0 bytes"}));

TEST(SafetensorsFile, DeepNestingIsRefused) {
  std::string header = "{\"a\":";
  for (int depth = 0; depth < 100'000; ++depth) header += '[';
  expect_refused(file_of(header, ""), "model.safetensors");
}

struct DtypeCase {
  const char* name;
  DType dtype;
  std::size_t bits;
};

// Every dtype of the format is known, with its size; those that share bytes need a whole number of them.
TEST(SafetensorsFile, EveryDtypeHasItsSize) {
  const TempFolder folder(in_memory_parent());
  for (const DtypeCase& row : std::initializer_list<DtypeCase>{
           {"BOOL", DType::kBool, 8}, {"U8", DType::kU8, 8}, {"I8", DType::kI8, 8}, {"F8_E5M2", DType::kF8E5M2, 8},
           {"F8_E4M3", DType::kF8E4M3, 8}, {"F8_E8M0", DType::kF8E8M0, 8}, {"F8_E4M3FNUZ", DType::kF8E4M3Fnuz, 8},
           {"F8_E5M2FNUZ", DType::kF8E5M2Fnuz, 8}, {"I16", DType::kI16, 16}, {"U16", DType::kU16, 16}, {"F16", DType::kF16, 16},
           {"BF16", DType::kBF16, 16}, {"I32", DType::kI32, 32}, {"U32", DType::kU32, 32}, {"F32", DType::kF32, 32},
           {"C64", DType::kC64, 64}, {"F64", DType::kF64, 64}, {"I64", DType::kI64, 64}, {"U64", DType::kU64, 64},
           {"F4", DType::kF4, 4}, {"F6_E2M3", DType::kF6E2M3, 6}, {"F6_E3M2", DType::kF6E3M2, 6}}) {
    EXPECT_EQ(bits_of(row.dtype), row.bits) << row.name;
    EXPECT_EQ(size_of(row.dtype), row.bits % 8 == 0 ? row.bits / 8 : 0) << row.name;
    EXPECT_STREQ(to_string(row.dtype), row.name);
    const std::string data(row.bits, 'd');  // eight elements
    const auto header = [&](std::size_t bytes) {
      return std::string(R"({"a":{"dtype":")") + row.name + R"(","shape":[2,4],"data_offsets":[0,)" + std::to_string(bytes) + "]}}";
    };
    spit(folder / "file", file_of(header(row.bits), data));
    const SafetensorsFile file(folder / "file");
    EXPECT_EQ(file.at("a").dtype, row.dtype);
    EXPECT_EQ(num_elements(file.at("a")), 8u);
    // Written by us, it is the same tensor again.
    write_safetensors(folder / "again", file.tensors(), {});
    EXPECT_EQ(SafetensorsFile(folder / "again").at("a").dtype, row.dtype);
    expect_refused(file_of(header(row.bits + 1), data + "d"), "expected " + std::to_string(row.bits) + " bytes");
  }
}

// Old writers do not pad the header: data begin anywhere.
TEST(SafetensorsFile, UnalignedDataAreReadAsTheyAre) {
  const TempFolder folder;
  const std::vector<float> values{1.25f, -3.0f};
  const std::string data(reinterpret_cast<const char*>(values.data()), 8);
  spit(folder / "file", file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})",
                                "x" + data));
  const SafetensorsFile file(folder / "file");
  EXPECT_EQ(std::memcmp(file.at("b").bytes.data(), values.data(), 8), 0);
}

// Releasing gives memory back; the bytes stay those of the file.
TEST(SafetensorsFile, ReleasedTensorsCanBeReadAgain) {
  const TempFolder folder;
  const std::vector<float> values(100'000, 2.5f);
  write_safetensors(folder / "file", {{"a", DType::kF32, {100'000}, Sample::bytes(values)}}, {});
  const SafetensorsFile file(folder / "file");
  file.release(file.at("a"));
  EXPECT_EQ(std::memcmp(file.at("a").bytes.data(), values.data(), 400'000), 0);
}

// The bytes that tools/golden/make_safetensors_golden.py writes and expects.
std::vector<std::byte> pattern(const std::string& name, std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>((i * 7 + name.size()) % 256);
  return bytes;
}

ParityCase safetensors_row(const SafetensorsFile& theirs, const std::string& inputs, const std::string& measure) {
  return {"safetensors", versions_of(nlohmann::json::parse(theirs.metadata().at("versions")), {"safetensors"}), inputs, measure, "none: a file"};
}

TEST(SafetensorsGolden, ThePackagesFileIsRead) {
  const SafetensorsFile file(std::string(ONESTEP_SOURCE_DIR) + "/tests/golden/safetensors_package.safetensors");
  EXPECT_GE(file.tensors().size(), 20u);
  ParityRow row(safetensors_row(file, "22 tensors of every dtype that the package writes, read", "tensors whose bytes differ"));
  for (const TensorView& tensor : file.tensors()) {
    const auto expected = pattern(tensor.name, tensor.bytes.size());
    row.forward(std::equal(expected.begin(), expected.end(), tensor.bytes.begin()) ? 0 : 1, 0, tensor.name);
  }
  EXPECT_EQ(file.metadata().at("made_by"), "the safetensors package");
  EXPECT_EQ(file.metadata().at("unicode"), "\u00e9 \u2028 \U0001f600");
  EXPECT_EQ(file.at("empty").shape, (std::vector<std::int64_t>{0, 5}));
  EXPECT_TRUE(file.at("scalar").shape.empty());
}

// Ours, as the package has read it: the same bytes again.
TEST(SafetensorsGolden, OursIsTheFileThatThePackageRead) {
  const TempFolder folder;
  std::vector<std::vector<std::byte>> memory;
  std::vector<TensorView> views;
  const auto add = [&](const std::string& name, DType dtype, const std::vector<std::int64_t>& shape, std::size_t elements) {
    memory.push_back(pattern(name, elements * bits_of(dtype) / 8));
    views.push_back({name, dtype, shape, memory.back()});
  };
  for (const DType dtype : {DType::kBool, DType::kU8, DType::kI8, DType::kF8E5M2, DType::kF8E4M3, DType::kI16, DType::kU16, DType::kF16,
                            DType::kBF16, DType::kI32, DType::kU32, DType::kF32, DType::kF64, DType::kI64, DType::kU64}) {
    add(std::string("own.") + to_string(dtype), dtype, {2, 3}, 6);
  }
  add("own.empty", DType::kF32, {3, 0}, 0);
  add("own.scalar", DType::kI64, {}, 1);
  write_safetensors(folder / "file", views, {{"made_by", "Onestep"}});
  const std::string golden = std::string(ONESTEP_SOURCE_DIR) + "/tests/golden/";
  const SafetensorsFile theirs(golden + "safetensors_package.safetensors");
  ParityRow row(safetensors_row(theirs, "17 tensors, written; the package reads them", "files that differ from the one it read"));
  row.forward(sha256(slurp(folder / "file")) == sha256(slurp(golden + "safetensors_onestep.safetensors")) ? 0 : 1, 0);
}

TEST(SafetensorsFile, AbsentFileIsNotFound) {
  const TempFolder folder;
  EXPECT_EQ(error_of([&] { SafetensorsFile file(folder / "absent"); })->code, ErrorCode::kNotFound);
}

// A file that another writer made: the twin's golden networks.
TEST(SafetensorsFile, ReadsTheGoldenFiles) {
  const SafetensorsFile file(std::string(ONESTEP_SOURCE_DIR) +
                             "/tests/golden/adm_unet_digits.safetensors");
  EXPECT_FALSE(file.tensors().empty());
}

}  // namespace
}  // namespace onestep
