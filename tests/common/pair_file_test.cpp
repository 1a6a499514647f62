#include "common/pair_file.h"

#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/mount.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <utility>

#include "common/error.h"
#include "common/hash.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

constexpr std::int64_t kElements = 2 * 3 * 4;

PairSetInfo sample_info() {
  PairSetInfo info;
  info.teacher_sha256 = sha256("teacher");
  info.sampler = R"({"kind":"heun","steps":18})";
  info.steps = 18;
  info.seed = 0xFFFFFFFFFFFFFFF0ULL;
  info.channels = 2;
  info.height = 3;
  info.width = 4;
  info.count = 700;
  info.rows_per_shard = 300;  // two blocks a shard, the second one short
  return info;
}

PairRows sample_rows(std::int64_t first, std::int64_t count) {
  PairRows rows;
  for (std::int64_t row = first; row < first + count; ++row) {
    for (std::int64_t i = 0; i < kElements; ++i) {
      rows.noise.push_back(static_cast<float>(row) + 0.01f * static_cast<float>(i));
      rows.image.push_back(-static_cast<float>(row) - 0.01f * static_cast<float>(i));
    }
    rows.label.push_back(row % 10);
    rows.index.push_back(row);
  }
  return rows;
}

// The whole set of three shards; returns its manifest.
PairSetManifest make_set(const std::string& folder) {
  PairSetManifest manifest{sample_info(), {}};
  for (const auto& [index, first, count] :
       {std::tuple{0, 0, 300}, std::tuple{1, 300, 300}, std::tuple{2, 600, 100}}) {
    manifest.shards.push_back(
        write_pair_shard(folder, manifest.info, index, 1, sample_rows(first, count)));
  }
  write_pair_manifest(folder, manifest);
  return manifest;
}

// A set of a text-to-image teacher names the prompts that its labels count; others have no such attribute and no such field.
TEST(PairShard, LabelsOfPromptsNameThem) {
  const TempFolder folder;
  PairSetInfo info = sample_info();
  info.count = info.rows_per_shard = 2;
  PairSetManifest manifest{info, {}};
  manifest.info.prompts_sha256 = sha256("prompts");
  manifest.shards.push_back(write_pair_shard(folder.path(), manifest.info, 0, 1, sample_rows(0, 2)));
  write_pair_manifest(folder.path(), manifest);
  const PairSetManifest read = read_pair_manifest(folder.path());
  EXPECT_EQ(read.info.prompts_sha256, sha256("prompts"));
  EXPECT_EQ(verify_pair_shard(folder.path(), read.info, 0).sha256, manifest.shards[0].sha256);
  for (const std::string& other : {std::string(), sha256("others")}) {
    info.prompts_sha256 = other;
    EXPECT_TRUE(error_of([&] { verify_pair_shard(folder.path(), info, 0); })) << other;
  }
  const TempFolder plain;
  make_set(plain.path());
  EXPECT_EQ(slurp(plain / "manifest.json").find("prompts"), std::string::npos);
}

TEST(PairShard, VerifyGivesTheRecordOfTheWriter) {
  const TempFolder folder;
  const auto manifest = make_set(folder.path());
  for (const PairShardRecord& written : manifest.shards) {
    const PairShardRecord found = verify_pair_shard(folder.path(), sample_info(), written.index);
    EXPECT_EQ(found.file, written.file);
    EXPECT_EQ(found.first, written.first);
    EXPECT_EQ(found.count, written.count);
    EXPECT_EQ(found.bytes, std::filesystem::file_size(folder / written.file));
    EXPECT_EQ(found.bytes, written.bytes);
    EXPECT_EQ(found.sha256, sha256(slurp(folder / written.file)));
    EXPECT_EQ(found.sha256, written.sha256);
  }
  EXPECT_EQ(names_in(folder.path()).size(), 4u);
}

TEST(PairShard, EqualRowsEqualBytesWhateverTheAttempt) {
  const TempFolder one, two;
  const auto first = write_pair_shard(one.path(), sample_info(), 2, 1, sample_rows(600, 100));
  const auto second = write_pair_shard(two.path(), sample_info(), 2, 9, sample_rows(600, 100));
  EXPECT_EQ(first.sha256, second.sha256);
  // Over a file of the same name as well.
  EXPECT_EQ(write_pair_shard(one.path(), sample_info(), 2, 2, sample_rows(600, 100)).sha256,
            first.sha256);
}

TEST(PairShard, HoldsNoTimeStamps) {
  const TempFolder folder;
  write_pair_shard(folder.path(), sample_info(), 0, 1, sample_rows(0, 300));
  const hid_t file = H5Fopen((folder / "pairs-00000.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  for (const char* name : {"/", "noise", "image", "label", "index", "block_digests"}) {
    H5O_info_t info{};
    ASSERT_GE(H5Oget_info_by_name2(file, name, &info, H5O_INFO_TIME, H5P_DEFAULT), 0);
    EXPECT_EQ(std::max({info.atime, info.mtime, info.ctime, info.btime}), 0) << name;
  }
  H5Fclose(file);
}

TEST(PairShard, RowsThatDoNotFitAreNotWritten) {
  const TempFolder folder;
  PairRows shifted = sample_rows(0, 300);
  shifted.index[17] = 18;
  PairRows short_image = sample_rows(0, 300);
  short_image.image.pop_back();
  for (const PairRows& rows : {shifted, short_image, sample_rows(0, 299)}) {
    EXPECT_TRUE(error_of([&] { write_pair_shard(folder.path(), sample_info(), 0, 1, rows); }));
  }
  EXPECT_TRUE(
      error_of([&] { write_pair_shard(folder.path(), sample_info(), 3, 1, sample_rows(900, 1)); }));
  EXPECT_TRUE(names_in(folder.path()).empty());
}

// Every call of durable_file fails in turn, as on a full disk.
TEST(PairShard, FullDiskIsNamedAndLeavesNoTemporaryFile) {
  int num_calls = 1;
  for (int nth = 1; nth <= num_calls; ++nth) {
    const TempFolder folder;
    const auto error = error_of([&] {
      const FailNthCall fail(nth, ENOSPC);
      write_pair_shard(folder.path(), sample_info(), 0, 4, sample_rows(0, 300));
    });
    ASSERT_TRUE(error) << "call " << nth;
    EXPECT_EQ(error->code, ErrorCode::kIo);
    EXPECT_NE(error->message.find("No space left on device"), std::string::npos) << error->message;
    EXPECT_NE(error->message.find(folder.path()), std::string::npos) << error->message;
    for (const std::string& name : names_in(folder.path())) EXPECT_EQ(name, "pairs-00000.h5");
    if (nth <= 4) {
      EXPECT_TRUE(names_in(folder.path()).empty()) << "call " << nth;
    }
    const FailNthCall count(0, 0);
    write_pair_shard(folder.path(), sample_info(), 0, 5, sample_rows(0, 300));
    num_calls = count.calls();
  }
  EXPECT_GE(num_calls, 6);
}

// A real full disk where mounting is allowed; elsewhere the second call, the write, fails as it
// would there.
TEST(PairShard, RealFullDisk) {
  const TempFolder folder;
  const std::string disk = folder / "disk";
  std::filesystem::create_directory(disk);
  const bool mounted = ::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=32k") == 0;
  const auto error = error_of([&] {
    const FailNthCall fail(mounted ? 0 : 2, ENOSPC);
    write_pair_shard(disk, sample_info(), 0, 1, sample_rows(0, 300));
  });
  const auto left = names_in(disk);
  if (mounted) ::umount(disk.c_str());
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kIo);
  EXPECT_NE(error->message.find(disk + "/pairs-00000.h5"), std::string::npos) << error->message;
  EXPECT_NE(error->message.find("No space left on device"), std::string::npos) << error->message;
  EXPECT_TRUE(left.empty());
}

TEST(PairShard, TheTemporaryNameCarriesTheAttempt) {
  const TempFolder folder;
  std::string opened;
  set_fault_hook_for_tests([&](const char* call, const std::string& path) {
    if (opened.empty() && std::string(call) == "open") opened = path;
    return 0;
  });
  write_pair_shard(folder.path(), sample_info(), 0, 7, sample_rows(0, 300));
  set_fault_hook_for_tests(nullptr);
  EXPECT_EQ(opened, folder / "pairs-00000.h5.a7.tmp");
}

class DamagedPairShard : public testing::Test {
 protected:
  DamagedPairShard()
      : record_(write_pair_shard(folder_.path(), sample_info(), 0, 1, sample_rows(0, 300))) {
    content_ = slurp(path());
  }
  [[nodiscard]] std::string path() const { return folder_ / "pairs-00000.h5"; }
  [[nodiscard]] std::optional<CaughtError> verify(const PairSetInfo& info = sample_info()) const {
    return error_of([&] { verify_pair_shard(folder_.path(), info, 0); });
  }
  [[nodiscard]] std::optional<CaughtError> open_reader() const {
    return error_of([&] { PairShardReader reader(folder_.path(), sample_info(), record_); });
  }
  // Verify must refuse, naming the file and `part`.
  void expect_refused(const std::string& part, ErrorCode code = ErrorCode::kCorrupt) const {
    const auto error = verify();
    ASSERT_TRUE(error) << "accepted: " << part;
    EXPECT_EQ(error->code, code) << error->message;
    EXPECT_NE(error->message.find(path()), std::string::npos) << error->message;
    EXPECT_NE(error->message.find(part), std::string::npos) << error->message;
  }

  TempFolder folder_{in_memory_parent()};
  PairShardRecord record_;
  std::string content_;
};

TEST_F(DamagedPairShard, RandomFlipsAreAllDetected) {
  std::mt19937_64 random(20260101);
  int by_verify = 0;
  for (int i = 0; i < 200; ++i) {
    const std::size_t bit = random() % (8 * content_.size());
    spit(path(), with_flipped_bit(content_, bit));
    std::string found;
    const auto error =
        error_of([&] { found = verify_pair_shard(folder_.path(), sample_info(), 0).sha256; });
    if (error) {
      ++by_verify;
      EXPECT_TRUE(error->code == ErrorCode::kCorrupt || error->code == ErrorCode::kMismatch)
          << error->message;
    } else {
      EXPECT_NE(found, record_.sha256) << "bit " << bit;
    }
  }
  // Nearly the whole file is data under digests or headers under checksums.
  EXPECT_GE(by_verify, 150);
}

TEST_F(DamagedPairShard, EveryFlipInDataIsDetectedByTheDigests) {
  const hid_t file = H5Fopen(path().c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  std::vector<std::pair<std::size_t, std::size_t>> ranges;
  for (const char* name : {"noise", "image", "label", "index", "block_digests"}) {
    const hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
    ranges.emplace_back(H5Dget_offset(dataset), H5Dget_storage_size(dataset));
    H5Dclose(dataset);
  }
  H5Fclose(file);
  std::mt19937_64 random(7);
  for (const auto& [offset, size] : ranges) {
    std::vector<std::size_t> bits{8 * offset, 8 * (offset + size) - 1};
    for (int i = 0; i < 40; ++i) bits.push_back(8 * offset + random() % (8 * size));
    for (const std::size_t bit : bits) {
      spit(path(), with_flipped_bit(content_, bit));
      const auto error = verify();
      ASSERT_TRUE(error) << "bit " << bit;
      EXPECT_EQ(error->code, ErrorCode::kCorrupt);
    }
  }
}

TEST_F(DamagedPairShard, EveryFlipInTheFirstHeadersNeverCrashes) {
  int detected = 0;
  for (std::size_t bit = 0; bit < 8 * 1200; bit += 7) {
    spit(path(), with_flipped_bit(content_, bit));
    std::string found;
    const auto error =
        error_of([&] { found = verify_pair_shard(folder_.path(), sample_info(), 0).sha256; });
    if (error || found != record_.sha256) ++detected;
  }
  EXPECT_EQ(detected, (8 * 1200 + 6) / 7);
}

TEST_F(DamagedPairShard, TruncationIsDetected) {
  for (std::size_t length = 0; length < content_.size(); length += length < 64 ? 1 : 997) {
    spit(path(), content_.substr(0, length));
    const auto error = verify();
    ASSERT_TRUE(error) << "length " << length;
    EXPECT_EQ(error->code, ErrorCode::kCorrupt) << error->message;
    EXPECT_TRUE(open_reader());
  }
  spit(path(), content_.substr(0, content_.size() - 1));
  EXPECT_TRUE(verify());
}

TEST_F(DamagedPairShard, ForeignFilesAreRefused) {
  for (const std::string& content : {std::string(), std::string("{}"), std::string(10'000, 'x'),
                                     content_.substr(0, 8) + std::string(10'000, '\0')}) {
    spit(path(), content);
    const auto error = verify();
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code, ErrorCode::kCorrupt);
  }
  std::filesystem::remove(path());
  EXPECT_EQ(verify()->code, ErrorCode::kNotFound);
}

TEST_F(DamagedPairShard, AnotherSetsShardIsAMismatchThatSaysHow) {
  PairSetInfo info = sample_info();
  info.teacher_sha256 = sha256("another teacher");
  auto error = verify(info);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kMismatch);
  EXPECT_NE(error->message.find("teacher_sha256: expected \"" + info.teacher_sha256 +
                                "\", found \"" + sample_info().teacher_sha256),
            std::string::npos)
      << error->message;
  info = sample_info();
  info.seed = 3;
  error = verify(info);
  ASSERT_TRUE(error);
  EXPECT_NE(error->message.find("seed: expected 3, found 18446744073709551600"), std::string::npos)
      << error->message;
  // The right set, another shard under this name.
  spit(path(),
       slurp(folder_ /
             write_pair_shard(folder_.path(), sample_info(), 1, 1, sample_rows(300, 300)).file));
  expect_refused("shard_first: expected 0, found 300", ErrorCode::kMismatch);
}

// One change that another program could make to a good shard, and the words of the refusal.
struct Tampering {
  std::string name;
  std::function<void(hid_t)> apply;
  std::string part;
};

void replace_dataset(hid_t file, const char* name, hid_t type, std::vector<hsize_t> dimensions,
                     const std::function<void(hid_t)>& change = nullptr) {
  H5Ldelete(file, name, H5P_DEFAULT);
  const hid_t space =
      H5Screate_simple(static_cast<int>(dimensions.size()), dimensions.data(), nullptr);
  const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY);
  if (change) change(creation);
  const hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  ASSERT_GE(dataset, 0) << name;
  H5Dclose(dataset);
  H5Pclose(creation);
  H5Sclose(space);
}

void replace_attribute(hid_t object, const char* name, hid_t type, bool remove_old) {
  if (remove_old) H5Adelete(object, name);
  const hid_t space = H5Screate(H5S_SCALAR);
  const hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  ASSERT_GE(attribute, 0) << name;
  H5Aclose(attribute);
  H5Sclose(space);
}

const std::vector<hsize_t> kPictures{300, 2, 3, 4};

std::vector<Tampering> tamperings() {
  return {
      {"attribute missing", [](hid_t file) { H5Adelete(file, "steps"); },
       "attribute steps: expected 18, found none"},
      {"attribute extra",
       [](hid_t file) { replace_attribute(file, "comment", H5T_STD_I64LE, false); },
       "attribute comment"},
      {"attribute big-endian",
       [](hid_t file) { replace_attribute(file, "steps", H5T_STD_I64BE, true); },
       "attribute steps: expected a little-endian int64"},
      {"attribute of another type",
       [](hid_t file) { replace_attribute(file, "sampler", H5T_STD_I64LE, true); },
       "attribute sampler: expected a text"},
      {"text of variable length",
       [](hid_t file) {
         const hid_t type = H5Tcopy(H5T_C_S1);
         H5Tset_size(type, H5T_VARIABLE);
         replace_attribute(file, "format", type, true);
         H5Tclose(type);
       },
       "attribute format: expected a text of fixed length"},
      {"dataset missing", [](hid_t file) { H5Ldelete(file, "label", H5P_DEFAULT); },
       "dataset label"},
      {"dataset extra",
       [](hid_t file) { H5Lcreate_hard(file, "label", file, "label2", H5P_DEFAULT, H5P_DEFAULT); },
       "\"label2\": expected no such object"},
      {"group extra",
       [](hid_t file) {
         H5Gclose(H5Gcreate2(file, "more", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
       },
       "\"more\": expected no such object"},
      {"dataset replaced by a group",
       [](hid_t file) {
         H5Ldelete(file, "label", H5P_DEFAULT);
         H5Gclose(H5Gcreate2(file, "label", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
       },
       "dataset label: expected a dataset"},
      {"soft link",
       [](hid_t file) {
         H5Lmove(file, "label", file, "index2", H5P_DEFAULT, H5P_DEFAULT);
         H5Ldelete(file, "index2", H5P_DEFAULT);
         H5Lcreate_soft("/index", file, "label", H5P_DEFAULT, H5P_DEFAULT);
       },
       "\"label\" is a soft link"},
      {"external link",
       [](hid_t file) {
         H5Ldelete(file, "label", H5P_DEFAULT);
         H5Lcreate_external("/etc/passwd", "/label", file, "label", H5P_DEFAULT, H5P_DEFAULT);
       },
       "\"label\" is a link to another file"},
      {"two names for one dataset",
       [](hid_t file) {
         H5Ldelete(file, "image", H5P_DEFAULT);
         H5Lcreate_hard(file, "noise", file, "image", H5P_DEFAULT, H5P_DEFAULT);
       },
       "expected data of their own"},
      {"attribute on a dataset",
       [](hid_t file) {
         const hid_t dataset = H5Dopen2(file, "label", H5P_DEFAULT);
         replace_attribute(dataset, "unit", H5T_STD_I64LE, false);
         H5Dclose(dataset);
       },
       "dataset label: expected no attributes"},
      {"double precision",
       [](hid_t file) { replace_dataset(file, "noise", H5T_IEEE_F64LE, kPictures); },
       "dataset noise: expected the type and byte order of the format, found 64-bit floating "
       "point"},
      {"big-endian", [](hid_t file) { replace_dataset(file, "image", H5T_IEEE_F32BE, kPictures); },
       "big-endian"},
      {"integer pictures",
       [](hid_t file) { replace_dataset(file, "image", H5T_STD_I32LE, kPictures); },
       "32-bit integer"},
      {"wrong shape",
       [](hid_t file) {
         replace_dataset(file, "image", H5T_IEEE_F32LE, {300, 2, 4, 3});
       },
       "dataset image: expected shape [300,2,3,4], found [300,2,4,3]"},
      {"wrong rank",
       [](hid_t file) {
         replace_dataset(file, "label", H5T_STD_I64LE, {300, 1});
       },
       "found [300,1]"},
      {"compressed",
       [](hid_t file) {
         replace_dataset(file, "image", H5T_IEEE_F32LE, kPictures, [](hid_t creation) {
           const hsize_t chunk[4] = {300, 2, 3, 4};
           H5Pset_chunk(creation, 4, chunk);
           H5Pset_deflate(creation, 1);
         });
       },
       "contiguous"},
      {"chunked",
       [](hid_t file) {
         replace_dataset(file, "image", H5T_IEEE_F32LE, kPictures, [](hid_t creation) {
           const hsize_t chunk[4] = {1, 2, 3, 4};
           H5Pset_chunk(creation, 4, chunk);
         });
       },
       "contiguous"},
      {"compact",
       [](hid_t file) {
         replace_dataset(file, "label", H5T_STD_I64LE, {300},
                         [](hid_t creation) { H5Pset_layout(creation, H5D_COMPACT); });
       },
       "contiguous"},
      {"virtual",
       [](hid_t file) {
         replace_dataset(file, "label", H5T_STD_I64LE, {300}, [](hid_t creation) {
           const hsize_t size = 300;
           const hid_t space = H5Screate_simple(1, &size, nullptr);
           H5Pset_virtual(creation, space, "other.h5", "label", space);
           H5Sclose(space);
         });
       },
       "\"label\" is a virtual dataset"},
      {"external file",
       [](hid_t file) {
         replace_dataset(file, "label", H5T_STD_I64LE, {300},
                         [](hid_t creation) { H5Pset_external(creation, "/dev/zero", 0, 2400); });
       },
       "\"label\" is a dataset whose data is in other files"},
      {"not allocated",
       [](hid_t file) {
         replace_dataset(file, "label", H5T_STD_I64LE, {300},
                         [](hid_t creation) { H5Pset_alloc_time(creation, H5D_ALLOC_TIME_LATE); });
       },
       "found none allocated"},
  };
}

TEST_F(DamagedPairShard, WhatAnotherProgramChangedIsRefusedByName) {
  for (const Tampering& tampering : tamperings()) {
    SCOPED_TRACE(tampering.name);
    spit(path(), content_);
    const hid_t file = H5Fopen(path().c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    ASSERT_GE(file, 0);
    tampering.apply(file);
    ASSERT_GE(H5Fclose(file), 0);
    expect_refused(tampering.part);
    EXPECT_TRUE(open_reader());
  }
}

TEST_F(DamagedPairShard, Hdf5PrintsNothing) {
  spit(path(), content_.substr(0, 100));
  testing::internal::CaptureStderr();
  EXPECT_TRUE(verify());
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(PairShardReader, RowsInAnyOrderFromManyThreads) {
  const TempFolder folder;
  const auto manifest = make_set(folder.path());
  PairShardReader opened(folder.path(), manifest.info, manifest.shards[1]);
  const PairShardReader reader = std::move(opened);
  const PairRows expected = sample_rows(300, 300);
  std::atomic<int> wrong{0};
  const auto read = [&](unsigned seed) {
    std::mt19937 random(seed);
    std::vector<float> noise(kElements), image(kElements);
    for (int i = 0; i < 500; ++i) {
      const auto row = static_cast<std::int64_t>(random() % 300);
      std::int64_t label = -1;
      reader.read_row(row, noise, image, label);
      const bool good =
          label == (300 + row) % 10 &&
          std::equal(noise.begin(), noise.end(), expected.noise.begin() + row * kElements) &&
          std::equal(image.begin(), image.end(), expected.image.begin() + row * kElements);
      if (!good) ++wrong;
    }
  };
  std::thread other(read, 1);
  read(2);
  other.join();
  EXPECT_EQ(wrong, 0);
}

TEST(PairShardReader, RefusesRowsAndRoomThatDoNotFit) {
  const TempFolder folder;
  const auto manifest = make_set(folder.path());
  const PairShardReader reader(folder.path(), manifest.info, manifest.shards[2]);
  std::vector<float> noise(kElements), image(kElements);
  std::int64_t label = 0;
  EXPECT_TRUE(error_of([&] { reader.read_row(100, noise, image, label); }));
  EXPECT_TRUE(error_of([&] { reader.read_row(-1, noise, image, label); }));
  noise.pop_back();
  EXPECT_TRUE(error_of([&] { reader.read_row(0, noise, image, label); }));
}

TEST(PairShardReader, RefusesARecordOfOtherRowsOrSize) {
  const TempFolder folder;
  const auto manifest = make_set(folder.path());
  PairShardRecord record = manifest.shards[0];
  record.bytes += 1;
  auto error = error_of([&] { PairShardReader reader(folder.path(), manifest.info, record); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kCorrupt);
  EXPECT_NE(error->message.find("size: expected"), std::string::npos);
  record = manifest.shards[0];
  record.count = 299;
  error = error_of([&] { PairShardReader reader(folder.path(), manifest.info, record); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kMismatch);
}

TEST(PairShardReader, FileCutWhileOpenIsAShortRead) {
  const TempFolder folder;
  const auto manifest = make_set(folder.path());
  const PairShardReader reader(folder.path(), manifest.info, manifest.shards[2]);
  std::filesystem::resize_file(folder / manifest.shards[2].file, 2100);
  std::vector<float> noise(kElements), image(kElements);
  std::int64_t label = 0;
  const auto error = error_of([&] { reader.read_row(99, noise, image, label); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kCorrupt);
}

TEST(PairManifest, RoundTripAndDigest) {
  const TempFolder folder;
  const auto written = make_set(folder.path());
  const auto found = read_pair_manifest(folder.path());
  EXPECT_EQ(found.info.teacher_sha256, written.info.teacher_sha256);
  EXPECT_EQ(found.info.sampler, written.info.sampler);
  EXPECT_EQ(found.info.seed, written.info.seed);
  EXPECT_EQ(found.info.width, 4);
  ASSERT_EQ(found.shards.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(found.shards[i].sha256, written.shards[i].sha256);
    EXPECT_EQ(found.shards[i].bytes, written.shards[i].bytes);
    EXPECT_EQ(found.shards[i].first, written.shards[i].first);
  }
  EXPECT_EQ(pair_set_digest(folder.path()), sha256(slurp(folder / "manifest.json")));
}

TEST(PairManifest, EveryFlippedBitAndEveryTruncationIsRefused) {
  const TempFolder folder(in_memory_parent());
  make_set(folder.path());
  const std::string path = folder / "manifest.json";
  const std::string content = slurp(path);
  for (std::size_t bit = 0; bit < 8 * content.size(); ++bit) {
    spit(path, with_flipped_bit(content, bit));
    const auto error = error_of([&] { read_pair_manifest(folder.path()); });
    ASSERT_TRUE(error) << "bit " << bit;
    ASSERT_EQ(error->code, ErrorCode::kCorrupt) << error->message;
  }
  for (std::size_t length = 0; length < content.size(); ++length) {
    spit(path, content.substr(0, length));
    ASSERT_TRUE(error_of([&] { read_pair_manifest(folder.path()); })) << "length " << length;
  }
  std::filesystem::remove(path);
  EXPECT_EQ(error_of([&] { read_pair_manifest(folder.path()); })->code, ErrorCode::kNotFound);
}

TEST(PairManifest, AListThatDisagreesWithThePlanIsNotWritten) {
  const TempFolder folder;
  const auto good = make_set(folder.path());
  std::filesystem::remove(folder / "manifest.json");
  std::vector<PairSetManifest> bad(5, good);
  bad[0].shards.pop_back();
  std::swap(bad[1].shards[0], bad[1].shards[1]);
  bad[2].shards[2].count = 99;
  bad[3].shards[0].sha256 = "none";
  bad[4].info.rows_per_shard = 1;
  for (const auto& manifest : bad) {
    EXPECT_TRUE(error_of([&] { write_pair_manifest(folder.path(), manifest); }));
    EXPECT_FALSE(file_exists(folder / "manifest.json"));
  }
}

TEST(PairManifest, EveryNthCallFailedGivesNoManifestOrAValidOne) {
  int num_calls = 1;
  for (int nth = 1; nth <= num_calls; ++nth) {
    const TempFolder folder(in_memory_parent());
    const auto manifest = make_set(folder.path());
    std::filesystem::remove(folder / "manifest.json");
    EXPECT_TRUE(error_of([&] {
      const FailNthCall fail(nth, EIO);
      write_pair_manifest(folder.path(), manifest);
    }));
    if (file_exists(folder / "manifest.json")) {
      EXPECT_FALSE(error_of([&] { read_pair_manifest(folder.path()); }));
    }
    EXPECT_LE(names_in(folder.path()).size(), 4u);
    const FailNthCall count(0, 0);
    write_pair_manifest(folder.path(), manifest);
    num_calls = count.calls();
  }
  EXPECT_GE(num_calls, 6);
}

}  // namespace
}  // namespace onestep
