#include "worker/data/image_dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <numeric>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr hsize_t kCount = 6, kSide = 4;

// What a test writes: a correct file unless it changes something.
struct FileContent {
  std::string format = "onestep-images";
  std::int64_t version = 1;
  std::int64_t num_classes = 3;
  std::vector<std::uint8_t> images = std::vector<std::uint8_t>(kCount * kSide * kSide);
  std::vector<std::uint8_t> labels = {0, 1, 2, 0, 1, 2};
  std::string sha256;  // "": the right one
  bool chunked = false;
  bool wide_pixels = false;  // 16 bits a pixel
  bool variable_text = false;
  std::string left_out;  // an attribute or dataset

  FileContent() { std::iota(images.begin(), images.end(), std::uint8_t{3}); }
  [[nodiscard]] std::string digest() const {
    Sha256 hash;
    hash.update(images.data(), images.size());
    hash.update(labels.data(), labels.size());
    return hash.finish();
  }
};

void write_text(hid_t file, const FileContent& content, const char* name,
                const std::string& value) {
  if (content.left_out == name) return;
  const hid_t type = H5Tcopy(H5T_C_S1);
  const hid_t space = H5Screate(H5S_SCALAR);
  const char* characters = value.c_str();
  H5Tset_size(type, content.variable_text ? H5T_VARIABLE : std::max<std::size_t>(value.size(), 1));
  const hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  if (content.variable_text) {
    H5Awrite(attribute, type, &characters);
  } else {
    H5Awrite(attribute, type, characters);
  }
  H5Aclose(attribute);
  H5Sclose(space);
  H5Tclose(type);
}

void write_integer(hid_t file, const FileContent& content, const char* name, std::int64_t value) {
  if (content.left_out == name) return;
  const hid_t space = H5Screate(H5S_SCALAR);
  const hid_t attribute = H5Acreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
  H5Awrite(attribute, H5T_NATIVE_INT64, &value);
  H5Aclose(attribute);
  H5Sclose(space);
}

void write_bytes(hid_t file, const FileContent& content, const char* name,
                 std::vector<hsize_t> shape, const std::vector<std::uint8_t>& bytes) {
  if (content.left_out == name) return;
  const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
  if (content.chunked) H5Pset_chunk(properties, static_cast<int>(shape.size()), shape.data());
  const hid_t space = H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
  const hid_t dataset = H5Dcreate2(file, name, content.wide_pixels ? H5T_STD_U16LE : H5T_STD_U8LE,
                                   space, H5P_DEFAULT, properties, H5P_DEFAULT);
  H5Dwrite(dataset, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data());
  H5Dclose(dataset);
  H5Sclose(space);
  H5Pclose(properties);
}

class ImageDatasetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = ::testing::TempDir() + "images_" +
            ::testing::UnitTest::GetInstance()->current_test_info()->name() + ".h5";
    fs::remove(path_);
  }
  void TearDown() override { fs::remove(path_); }

  void write(const FileContent& content) const {
    // The newest layout, as tools/make_digits.py writes: its metadata carries checksums.
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
    const hid_t file = H5Fcreate(path_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access);
    const hsize_t count = content.images.size() / (kSide * kSide);
    write_bytes(file, content, "images", {count, 1, kSide, kSide}, content.images);
    write_bytes(file, content, "labels", {content.labels.size()}, content.labels);
    write_text(file, content, "format", content.format);
    write_integer(file, content, "format_version", content.version);
    write_integer(file, content, "num_classes", content.num_classes);
    write_text(file, content, "sha256", content.sha256.empty() ? content.digest() : content.sha256);
    H5Fclose(file);
    H5Pclose(access);
  }

  // Expects an error that names the file and every given part.
  void expect_error(ErrorCode code, const std::vector<std::string>& parts,
                    std::int64_t resolution = 0) const {
    try {
      const ImageDataset data({path_, resolution});
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_THAT(error.what(), HasSubstr(path_));
      EXPECT_THAT(error.what(), HasSubstr("expected"));
      EXPECT_THAT(error.what(), HasSubstr("found"));
      for (const std::string& part : parts) EXPECT_THAT(error.what(), HasSubstr(part));
    }
  }

  std::string path_;
};

TEST_F(ImageDatasetTest, ReadsPixelsAndLabels) {
  for (const bool variable_text : {false, true}) {
    FileContent content;
    content.variable_text = variable_text;
    write(content);
    const ImageDataset data({path_, 0});
    EXPECT_EQ(data.size(), 6);
    EXPECT_EQ(data.num_classes(), 3);
    EXPECT_EQ(data.digest(), content.digest());
    EXPECT_EQ(data.images().sizes(), (std::vector<std::int64_t>{6, 1, 4, 4}));
    EXPECT_EQ(data.images().scalar_type(), torch::kFloat32);
    EXPECT_TRUE(torch::equal(data.labels(), torch::tensor({0, 1, 2, 0, 1, 2}, torch::kInt64)));
    const auto pixels = data.images().flatten();
    for (std::int64_t i = 0; i < pixels.size(0); ++i) {
      EXPECT_EQ(pixels[i].item<float>(),
                static_cast<float>(content.images[static_cast<std::size_t>(i)] / 127.5 - 1));
    }
  }
}

TEST_F(ImageDatasetTest, AveragesBoxes) {
  FileContent content;
  write(content);
  const ImageDataset data({path_, 2});
  EXPECT_EQ(data.images().sizes(), (std::vector<std::int64_t>{6, 1, 2, 2}));
  for (std::int64_t n = 0; n < 6; ++n) {
    for (std::int64_t y = 0; y < 2; ++y) {
      for (std::int64_t x = 0; x < 2; ++x) {
        const auto at = [&](std::int64_t dy, std::int64_t dx) {
          return content.images[static_cast<std::size_t>(n * 16 + (2 * y + dy) * 4 + 2 * x + dx)];
        };
        const double mean = (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4.0;
        EXPECT_EQ(data.images()[n][0][y][x].item<float>(), static_cast<float>(mean / 127.5 - 1));
      }
    }
  }
}

TEST_F(ImageDatasetTest, RefusesAResolutionThatDoesNotDivide) {
  write({});
  expect_error(ErrorCode::kMismatch, {"resolution", "3", "4x4"}, 3);
  expect_error(ErrorCode::kMismatch, {"resolution"}, 8);
}

TEST_F(ImageDatasetTest, RefusesAMissingFile) { expect_error(ErrorCode::kNotFound, {}); }

TEST_F(ImageDatasetTest, RefusesAnotherFormat) {
  std::ofstream(path_) << "P5 4 4 255 and so on, as long as it needs to be to look like something";
  expect_error(ErrorCode::kCorrupt, {"HDF5"});
  FileContent content;
  content.format = "onestep-pairs";
  write(content);
  expect_error(ErrorCode::kCorrupt, {"`format`", "onestep-images", "onestep-pairs"});
  content = {};
  content.version = 2;
  write(content);
  expect_error(ErrorCode::kCorrupt, {"`format_version`", "1", "2"});
}

TEST_F(ImageDatasetTest, RefusesMissingParts) {
  for (const char* part :
       {"format", "format_version", "num_classes", "sha256", "images", "labels"}) {
    FileContent content;
    content.left_out = part;
    write(content);
    expect_error(ErrorCode::kCorrupt, {std::string("`") + part + "`"});
  }
}

TEST_F(ImageDatasetTest, RefusesWrongContent) {
  FileContent content;
  content.labels.pop_back();
  write(content);
  expect_error(ErrorCode::kCorrupt, {"`labels`", "6", "5"});
  content = {};
  content.labels[4] = 3;
  write(content);
  expect_error(ErrorCode::kCorrupt, {"`labels`, row 4", "3"});
  content = {};
  content.wide_pixels = true;
  write(content);
  expect_error(ErrorCode::kCorrupt, {"`images`", "unsigned bytes"});
  content = {};
  content.chunked = true;
  write(content);
  expect_error(ErrorCode::kCorrupt, {"`images`", "contiguous"});
  content = {};
  content.sha256 = std::string(64, '0');
  write(content);
  expect_error(ErrorCode::kCorrupt, {"digest", std::string(64, '0'), content.digest()});
}

TEST_F(ImageDatasetTest, RefusesEveryTruncation) {
  write({});
  const std::string whole = read_file(path_);
  for (std::size_t size = 0; size < whole.size(); size += 41) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << whole.substr(0, size);
    expect_error(ErrorCode::kCorrupt, {});
  }
}

// A flipped bit is refused, or lies in a byte that nothing is read from: the data are never others.
TEST_F(ImageDatasetTest, AFlippedBitNeverChangesTheData) {
  write({});
  const std::string whole = read_file(path_);
  const ImageDataset original({path_, 0});
  std::size_t refused = 0, tried = 0;
  for (std::size_t byte = 0; byte < whole.size(); byte += 11) {
    std::string flipped = whole;
    flipped[byte] = static_cast<char>(flipped[byte] ^ (1 << (byte % 8)));
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << flipped;
    ++tried;
    try {
      const ImageDataset data({path_, 0});
      ASSERT_TRUE(torch::equal(data.images(), original.images())) << "byte " << byte;
      ASSERT_TRUE(torch::equal(data.labels(), original.labels())) << "byte " << byte;
      ASSERT_EQ(data.num_classes(), original.num_classes()) << "byte " << byte;
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::kCorrupt) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, tried / 4);
}

}  // namespace
}  // namespace onestep
