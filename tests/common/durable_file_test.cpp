#include "common/durable_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "common/error.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

TEST(DurableFile, AppearsWholeAtCommit) {
  const TempFolder folder;
  DurableFile file(folder / "file");
  file.write("one ");
  file.write("two", 3);
  EXPECT_FALSE(file_exists(folder / "file"));
  file.commit();
  EXPECT_EQ(slurp(folder / "file"), "one two");
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"file"});
}

TEST(DurableFile, WithoutCommitNothingIsLeft) {
  const TempFolder folder;
  {
    DurableFile file(folder / "file");
    file.write("half");
    EXPECT_EQ(names_in(folder.path()).size(), 1u);
  }
  EXPECT_TRUE(names_in(folder.path()).empty());
}

TEST(DurableFile, MovedFileStillCommits) {
  const TempFolder folder;
  DurableFile first(folder / "file");
  first.write("a");
  DurableFile second = std::move(first);
  DurableFile third(folder / "other");
  third = std::move(second);
  third.write("b");
  third.commit();
  EXPECT_EQ(slurp(folder / "file"), "ab");
}

TEST(DurableFile, ChosenTemporaryName) {
  const TempFolder folder;
  DurableFile file(folder / "pairs.h5", folder / "pairs.h5.a3.tmp");
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"pairs.h5.a3.tmp"});
  file.commit();
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"pairs.h5"});
}

// Every call in turn fails: then the old content or the new stands, whole, and no temporary file.
TEST(WriteFileDurably, OldOrNewNeverHalf) {
  const TempFolder folder;
  const std::string path = folder / "file";
  const std::string before(1000, 'o');
  const std::string after(2000, 'n');
  int num_calls = 0;
  {
    const FailNthCall count(0, 0);
    write_file_durably(path, before);
    num_calls = count.calls();
  }
  ASSERT_GE(num_calls, 6);  // open, write, fsync, rename, open and fsync of the folder
  for (int nth = 1; nth <= num_calls; ++nth) {
    spit(path, before);
    const auto error = error_of([&] {
      const FailNthCall fail(nth, ENOSPC);
      write_file_durably(path, after);
    });
    ASSERT_TRUE(error) << "call " << nth;
    EXPECT_EQ(error->code, ErrorCode::kIo);
    EXPECT_NE(error->message.find("No space left on device"), std::string::npos) << error->message;
    EXPECT_NE(error->message.find(folder.path()), std::string::npos) << error->message;
    const std::string content = slurp(path);
    EXPECT_TRUE(content == before || content == after) << "call " << nth;
    // Up to the rename it is the old one.
    if (nth <= 4) {
      EXPECT_EQ(content, before) << "call " << nth;
    }
    EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"file"}) << "call " << nth;
  }
}

TEST(PublishFileDurably, EveryFailedCallIsReported) {
  const TempFolder folder;
  int num_calls = 0;
  for (int nth = 0; nth <= num_calls; ++nth) {
    spit(folder / "temporary", "content");
    const auto error = error_of([&] {
      const FailNthCall fail(nth, EIO);
      publish_file_durably(folder / "temporary", folder / "file");
      num_calls = fail.calls();
    });
    EXPECT_EQ(error.has_value(), nth != 0) << "call " << nth;
    if (file_exists(folder / "file")) {
      EXPECT_EQ(slurp(folder / "file"), "content");
    }
  }
  EXPECT_GE(num_calls, 5);
}

TEST(CreateFoldersDurably, MakesAllParentsAndMindsNoneThere) {
  const TempFolder folder;
  create_folders_durably(folder / "a/b/c");
  create_folders_durably(folder / "a/b/c/");
  write_file_durably(folder / "a/b/c/file", "x");
  EXPECT_EQ(slurp(folder / "a/b/c/file"), "x");
}

TEST(CreateFoldersDurably, FileInTheWayIsNamed) {
  const TempFolder folder;
  spit(folder / "a", "");
  const auto error = error_of([&] { create_folders_durably(folder / "a/b"); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kIo);
  EXPECT_NE(error->message.find(folder / "a"), std::string::npos);
}

TEST(CreateFoldersDurably, FailedMkdirIsReported) {
  const TempFolder folder;
  const FailNthCall fail(1, EACCES);
  const auto error = error_of([&] { create_folders_durably(folder / "a"); });
  ASSERT_TRUE(error);
  EXPECT_NE(error->message.find("mkdir"), std::string::npos);
}

TEST(RemoveFileDurably, AbsentIsFine) {
  const TempFolder folder;
  spit(folder / "file", "x");
  remove_file_durably(folder / "file");
  remove_file_durably(folder / "file");
  EXPECT_TRUE(names_in(folder.path()).empty());
}

TEST(ReadFile, WholeContentWithNulBytes) {
  const TempFolder folder;
  std::string content(200'000, '\0');
  content[100'000] = 'x';
  spit(folder / "file", content);
  EXPECT_EQ(read_file(folder / "file"), content);
  EXPECT_EQ(file_size(folder / "file"), content.size());
}

TEST(ReadFile, AbsentAndFolderDiffer) {
  const TempFolder folder;
  const auto absent = error_of([&] { read_file(folder / "absent"); });
  ASSERT_TRUE(absent);
  EXPECT_EQ(absent->code, ErrorCode::kNotFound);
  const auto is_folder = error_of([&] { read_file(folder.path()); });
  ASSERT_TRUE(is_folder);
  EXPECT_EQ(is_folder->code, ErrorCode::kIo);
  EXPECT_EQ(error_of([&] { file_size(folder / "absent"); })->code, ErrorCode::kNotFound);
}

TEST(ReadFile, WhatHasNoEndIsRefused) {
  const TempFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  for (const std::string& path : {folder / "pipe", std::string("/dev/zero")}) {
    const auto error = error_of([&] { read_file(path); });
    ASSERT_TRUE(error) << path;
    EXPECT_EQ(error->code, ErrorCode::kIo) << path;
    EXPECT_EQ(error->message, path + ": expected a regular file, found something else");
  }
}

TEST(MappedFile, BytesOfTheFileAlsoAfterMove) {
  const TempFolder folder;
  spit(folder / "file", "content");
  MappedFile first(folder / "file");
  const MappedFile second = std::move(first);
  ASSERT_EQ(second.bytes().size(), 7u);
  EXPECT_EQ(std::memcmp(second.bytes().data(), "content", 7), 0);
}

TEST(MappedFile, EmptyFileAndAbsentFile) {
  const TempFolder folder;
  spit(folder / "empty", "");
  EXPECT_TRUE(MappedFile(folder / "empty").bytes().empty());
  EXPECT_EQ(error_of([&] { MappedFile file(folder / "absent"); })->code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace onestep
