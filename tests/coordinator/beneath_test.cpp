#include "coordinator/beneath.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <limits>

#include "coordinator/file_response.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class Beneath : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_ / "root/data");
    spit(folder_ / "root/data/a.h5", "0123456789");
    spit(folder_ / "secret", "secret");
    fs::create_symlink("../secret", folder_ / "root/link");
    fs::create_symlink(folder_ / "secret", folder_ / "root/absolute");
    fs::create_directory_symlink("..", folder_ / "root/up");
    fs::create_directory_symlink("data", folder_ / "root/inside");
    fs::create_directory_symlink(folder_ / "root", folder_ / "alias");
    fs::create_symlink("/proc/self/root/etc/passwd", folder_ / "root/magic");
  }
  void expect_refused(const std::string& relative) {
    try {
      open_beneath(folder_ / "root", relative);
      ADD_FAILURE() << "opened " << relative;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kConflict) << error.what();
    }
  }
  TempFolder folder_;
};

TEST_F(Beneath, OpensWhatLiesThere) {
  const std::optional<OpenFile> file = open_beneath(folder_ / "root", "data/a.h5");
  ASSERT_TRUE(file);
  EXPECT_EQ(file->size(), 10);
  EXPECT_EQ(file->read_at(8, 100), "89");
  EXPECT_EQ(file->read_at(11, 100), "");
  EXPECT_EQ(file->read_at(std::numeric_limits<std::int64_t>::max(), 100), "");
  EXPECT_EQ(read_beneath(folder_ / "alias", "data/a.h5", 2, 3), "234") << "the operator's own folder may be a link";
  EXPECT_FALSE(open_beneath(folder_ / "root", "data/b.h5"));
  EXPECT_EQ(read_beneath(folder_ / "root", "none/at/all", 0, 9), "");
}

TEST_F(Beneath, RefusesEveryWayOut) {
  for (const char* relative : {"../secret", "data/../../secret", "link", "absolute", "up/secret", "inside/a.h5", "magic",
                               "/etc/passwd", "data"}) {
    expect_refused(relative);
  }
  ASSERT_EQ(::mkfifo((folder_ / "root/pipe").c_str(), 0600), 0);
  expect_refused("pipe");
}

TEST_F(Beneath, PartByPartIsTheSame) {
  const int root = ::open((folder_ / "root").c_str(), O_PATH | O_DIRECTORY);
  ASSERT_GE(root, 0);
  const auto opened = [&](const std::string& relative, int flags) {
    const int found = open_by_parts(root, relative, flags);
    if (found >= 0) ::close(found);
    return found < 0 ? found : 0;
  };
  for (const int flags : {O_RDONLY | O_NONBLOCK, O_PATH}) {
    EXPECT_EQ(opened("data/a.h5", flags), 0);
    EXPECT_EQ(opened("./data//a.h5", flags), 0);
    EXPECT_EQ(opened(".", flags), 0);
    EXPECT_EQ(opened("data/b.h5", flags), -ENOENT);
    EXPECT_EQ(opened("data/a.h5/c", flags), -ENOTDIR);
    for (const char* link : {"link", "absolute", "up/secret", "inside/a.h5", "magic", "up"}) EXPECT_EQ(opened(link, flags), -ELOOP) << link;
    for (const char* out : {"../secret", "data/../../secret", "/etc/passwd", ".."}) EXPECT_EQ(opened(out, flags), -EXDEV) << out;
  }
  ::close(root);
}

TEST_F(Beneath, RootsTakeWhatLiesBeneathThemAndSayWhyNot) {
  const FileRoots roots({folder_ / "root", folder_ / "alias/data/"});
  EXPECT_EQ(roots.refuse(folder_ / "root"), "");
  EXPECT_EQ(roots.refuse(folder_ / "root/data/a.h5"), "");
  EXPECT_EQ(roots.refuse(folder_ / "root/new/output"), "") << "made later";
  EXPECT_EQ(roots.refuse(folder_ / "alias/data/a.h5"), "");
  EXPECT_THAT(roots.refuse(folder_ / "secret"), HasSubstr("--root DIR"));
  EXPECT_THAT(roots.refuse(folder_ / "roots"), HasSubstr("beneath one of"));
  EXPECT_THAT(roots.refuse("/etc/passwd"), HasSubstr("beneath one of"));
  EXPECT_THAT(roots.refuse(folder_ / "root/link"), HasSubstr("symbolic link"));
  EXPECT_THAT(roots.refuse(folder_ / "root/up/secret"), HasSubstr("symbolic link"));
  EXPECT_THAT(roots.refuse(folder_ / "root/up/new"), HasSubstr("symbolic link"));
  EXPECT_EQ(FileRoots({"/"}).refuse("/etc/passwd"), "");
  EXPECT_THROW(FileRoots({"relative"}), Error);
}

TEST_F(Beneath, AnswersRanges) {
  const auto get = [&](std::map<std::string, std::string> headers) {
    return file_response({"GET", "/f", std::move(headers), ""}, "application/octet-stream", "tag",
                         open_beneath(folder_ / "root", "data/a.h5").value());
  };
  const auto bytes = [](const HttpResponse& response) {
    return response.file->file.read_at(response.file->offset, response.file->length);
  };
  const HttpResponse whole = get({});
  EXPECT_EQ(whole.status, 200);
  EXPECT_EQ(whole.headers.at("ETag"), "\"tag\"");
  EXPECT_EQ(bytes(whole), "0123456789");
  const std::vector<std::tuple<std::string, std::string, std::string>> parts = {
      {"bytes=2-4", "234", "bytes 2-4/10"},   {"bytes=7-", "789", "bytes 7-9/10"}, {"bytes=-2", "89", "bytes 8-9/10"},
      {"bytes=0-99", "0123456789", "bytes 0-9/10"}, {"bytes=-99", "0123456789", "bytes 0-9/10"}};
  for (const auto& [range, expected, content] : parts) {
    const HttpResponse part = get({{"range", range}});
    EXPECT_EQ(part.status, 206) << range;
    EXPECT_EQ(bytes(part), expected) << range;
    EXPECT_EQ(part.headers.at("Content-Range"), content);
  }
  for (const char* range : {"bytes=10-", "bytes=10-12", "bytes=-0"}) {
    const HttpResponse none = get({{"range", range}});
    EXPECT_EQ(none.status, 416) << range;
    EXPECT_EQ(none.headers.at("Content-Range"), "bytes */10");
  }
  // No range that RFC 9110 knows, or several: the whole file.
  for (const char* range : {"bytes=4-2", "bytes=a-b", "bytes=", "bytes=1-2,4-5", "lines=1-2", "bytes=99999999999999999999-"}) {
    EXPECT_EQ(get({{"range", range}}).status, 200) << range;
  }
  EXPECT_EQ(get({{"if-none-match", "\"other\", \"tag\""}}).status, 304);
  EXPECT_EQ(get({{"if-none-match", "*"}}).status, 304);
  EXPECT_EQ(get({{"if-none-match", "\"other\""}}).status, 200);
  EXPECT_EQ(get({{"range", "bytes=1-2"}, {"if-range", "\"tag\""}}).status, 206);
  EXPECT_EQ(get({{"range", "bytes=1-2"}, {"if-range", "\"old\""}}).status, 200);
}

}  // namespace
}  // namespace onestep
