#include "common/hdf5_guard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <sys/stat.h>

#include <filesystem>
#include <functional>

#include "common/error.h"
#include "common/image_file.h"
#include "support/files.h"
#include "support/small_images.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using testing::HasSubstr;

// A file that a hostile hand made.
class Hdf5Guard : public testing::Test {
 protected:
  std::string make(const std::string& name, const std::function<void(hid_t)>& fill) {
    const std::string path = folder_ / name;
    const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    fill(file);
    H5Fclose(file);
    return path;
  }
  static void add_dataset(hid_t file, const char* name, hid_t creation = H5P_DEFAULT) {
    const hsize_t size = 64;
    const hid_t space = H5Screate_simple(1, &size, nullptr);
    H5Dclose(H5Dcreate2(file, name, H5T_STD_U8LE, space, H5P_DEFAULT, creation, H5P_DEFAULT));
    H5Sclose(space);
  }
  static void expect_refused(const std::string& path, const std::string& why, const LockedChildLimits& limits = {}) {
    try {
      check_hdf5_in_child(path, limits);
      ADD_FAILURE() << "passed: " << path;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
      EXPECT_THAT(error.what(), HasSubstr(why));
      EXPECT_THAT(error.what(), HasSubstr(path));
    }
  }
  TempFolder folder_;
};

TEST_F(Hdf5Guard, PassesAFileOfItsOwnData) {
  check_hdf5_in_child(make("plain.h5", [](hid_t file) {
    add_dataset(file, "a");
    H5Gclose(H5Gcreate2(file, "group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Lcreate_hard(file, "a", file, "group/same", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_hard(file, "/", file, "group/circle", H5P_DEFAULT, H5P_DEFAULT);
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t chunk = 16;
    H5Pset_chunk(creation, 1, &chunk);
    H5Pset_shuffle(creation);
    H5Pset_deflate(creation, 4);
    H5Pset_fletcher32(creation);
    add_dataset(file, "packed", creation);
    H5Pclose(creation);
  }));
  spit(folder_ / "no.h5", "no HDF5 at all");
  check_hdf5_in_child(folder_ / "no.h5");  // for the reader to say
  check_hdf5_in_child(folder_ / "missing.h5");
}

TEST_F(Hdf5Guard, RefusesWhatLeadsElsewhere) {
  spit(folder_ / "secret", std::string(64, 's'));
  expect_refused(make("external_link.h5", [](hid_t file) {
                   H5Lcreate_external("/etc/passwd", "/data", file, "data", H5P_DEFAULT, H5P_DEFAULT);
                 }), "a link to another file");
  expect_refused(make("soft.h5", [](hid_t file) {
                   add_dataset(file, "a");
                   H5Lcreate_soft("/a", file, "data", H5P_DEFAULT, H5P_DEFAULT);
                 }), "\"data\" is a soft link");
  expect_refused(make("nested.h5", [](hid_t file) {
                   H5Gclose(H5Gcreate2(file, "g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
                   H5Lcreate_soft("/nowhere", file, "g/dangling", H5P_DEFAULT, H5P_DEFAULT);
                 }), "\"g/dangling\" is a soft link");
  expect_refused(make("external_storage.h5", [&](hid_t file) {
                   const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
                   H5Pset_external(creation, (folder_ / "secret").c_str(), 0, 64);
                   add_dataset(file, "data", creation);
                   H5Pclose(creation);
                 }), "data is in other files");
  expect_refused(make("virtual.h5", [](hid_t file) {
                   const hsize_t size = 64;
                   const hid_t space = H5Screate_simple(1, &size, nullptr);
                   const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
                   H5Pset_virtual(creation, space, "/other.h5", "data", space);
                   add_dataset(file, "data", creation);
                   H5Pclose(creation);
                   H5Sclose(space);
                 }), "a virtual dataset");
}

TEST_F(Hdf5Guard, RefusesFiltersThatAPluginWouldServe) {
  for (const H5Z_filter_t filter : {H5Z_FILTER_SCALEOFFSET, static_cast<H5Z_filter_t>(32015)}) {
    const std::string path = make("filter.h5", [&](hid_t file) {
      const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
      const hsize_t chunk = 16;
      H5Pset_chunk(creation, 1, &chunk);
      if (filter == H5Z_FILTER_SCALEOFFSET) {
        H5Pset_scaleoffset(creation, H5Z_SO_INT, 2);
      } else {
        H5Pset_filter(creation, filter, H5Z_FLAG_OPTIONAL, 0, nullptr);
      }
      add_dataset(file, "data", creation);
      H5Pclose(creation);
    });
    expect_refused(path, "a filter other than");
  }
}

TEST_F(Hdf5Guard, RefusesMoreThanAHundredThousandObjects) {
  const auto with_links = [](int count) {
    return [count](hid_t file) {
      add_dataset(file, "a");
      for (int i = 1; i < count; ++i) H5Lcreate_hard(file, "a", file, std::to_string(i).c_str(), H5P_DEFAULT, H5P_DEFAULT);
    };
  };
  check_hdf5_in_child(make("many.h5", with_links(100'000)));
  expect_refused(make("too_many.h5", with_links(100'001)), "one of more than 100,000 links");
}

// The heap that holds the names of the root group's links is said to be `bytes` long, in a file that is (with holes).
void claim_a_large_heap(const std::string& path, std::uint64_t bytes) {
  std::string file = slurp(path);
  const std::size_t heap = file.find("HEAP");
  ASSERT_NE(heap, std::string::npos);
  const auto put = [&](std::size_t at, std::uint64_t value) {
    for (int i = 0; i < 8; ++i) file[at + static_cast<std::size_t>(i)] = static_cast<char>(value >> (8 * i));
  };
  put(heap + 8, bytes);
  put(40, bytes + (1 << 20));  // where the file ends, by the superblock of version 0
  spit(path, file);
  std::filesystem::resize_file(path, bytes + (1 << 20));
}

TEST_F(Hdf5Guard, RefusesWhatNeedsMoreMemoryThanItsLimit) {
  const auto add_one = [](hid_t file) { add_dataset(file, "a"); };
  const std::string path = make("heap.h5", add_one);
  claim_a_large_heap(path, 16 << 20);
  check_hdf5_in_child(path);
  claim_a_large_heap(make("heap.h5", add_one), std::uint64_t{5} << 28);
  expect_refused(path, "can't look through it within 1024 MiB");
}

TEST_F(Hdf5Guard, RefusesWhatKeepsTheLibraryBusy) {
  // A pipe is opened as any file is, and never answers.
  ASSERT_EQ(::mkfifo((folder_ / "pipe.h5").c_str(), 0600), 0);
  expect_refused(folder_ / "pipe.h5", "keeps the HDF5 library busy for more than 1 s", {.time_s = 1});
  EXPECT_EQ(LockedChildLimits{}.time_s, 10);
}

TEST_F(Hdf5Guard, AFileThatChangedIsLookedAtAgain) {
  const std::string path = make("changes.h5", [](hid_t file) { add_dataset(file, "a"); });
  check_hdf5_in_child(path);
  make("changes.h5", [](hid_t file) { H5Lcreate_external("/etc/passwd", "/", file, "a", H5P_DEFAULT, H5P_DEFAULT); });
  expect_refused(path, "a link to another file");
}

TEST_F(Hdf5Guard, StandsBeforeTheReaders) {
  write_small_images(folder_ / "images.h5", 3, 1, 2, 2);
  const hid_t file = H5Fopen((folder_ / "images.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  H5Lcreate_external("/etc/passwd", "/", file, "more", H5P_DEFAULT, H5P_DEFAULT);
  H5Fclose(file);
  try {
    const ImageFile images(folder_ / "images.h5");
    ADD_FAILURE() << "read a file with a link out of it";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("a link to another file"));
  }
}

}  // namespace
}  // namespace onestep
