#include "cli/pack_dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>

#include "cli/dataset_labels.h"
#include "common/image_decode.h"
#include "common/image_file.h"
#include "support/files.h"
#include "support/stored_zip.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

const std::string kPictures = std::string(ONESTEP_SOURCE_DIR) + "/tests/golden/pictures/";

DecodedImage decoded(const std::string& name) {
  const std::string content = slurp(kPictures + name);
  return decode_image(std::as_bytes(std::span(content)), name);
}

PackResult pack(const PackOptions& options) {
  return pack_dataset(options, [](std::int64_t, std::int64_t) {});
}

class PackDataset : public ::testing::Test {
 protected:
  PackDataset() { fs::create_directories(in_ + "/sub"); }

  void add(const std::string& name, const std::string& picture) {
    fs::copy_file(kPictures + picture, in_ + "/" + name);
  }
  void label(const std::string& json) { spit(in_ + "/dataset.json", json); }
  [[nodiscard]] PackOptions options(const std::string& out = "set.h5") const {
    PackOptions options;
    options.in = in_;
    options.out = folder_ / out;
    options.jobs = 1;
    return options;
  }

  // Expects a refusal that names all parts, and nothing under the name of the output.
  void expect_refused(const PackOptions& options, ErrorCode code,
                      const std::vector<std::string>& parts) {
    const auto error = error_of([&] { pack(options); });
    ASSERT_TRUE(error) << parts.front();
    EXPECT_EQ(error->code, code) << error->message;
    for (const std::string& part : parts) EXPECT_THAT(error->message, HasSubstr(part));
    EXPECT_FALSE(fs::exists(options.out));
  }

  const TempFolder folder_{in_memory_parent()};
  const std::string in_ = folder_ / "in";
};

TEST_F(PackDataset, PixelsLabelsAndDigestAreInTheFile) {
  add("b.png", "square.png");
  add("sub/a.png", "square.png");
  add("c.PNG", "square.png");
  spit(in_ + "/notes.txt", "left out");
  label(R"({"labels":[["c.PNG",2],["b.png",0],["sub/a.png",1]]})");
  const PackResult result = pack(options());
  EXPECT_EQ(result.count, 3);
  EXPECT_EQ(result.side, 48);
  EXPECT_EQ(result.num_classes, 3);
  EXPECT_EQ(result.num_others, 1);
  const ImageFile file(folder_ / "set.h5");
  EXPECT_EQ(file.verify(), result.sha256);
  EXPECT_EQ(file.read_labels(),
            (std::vector<std::int64_t>{0, 2, 1}));  // by name: b.png, c.PNG, sub/a.png
  std::vector<std::uint8_t> pixels(3 * 48 * 48);
  file.read_images(1, pixels);
  const DecodedImage image = decoded("square.png");
  for (std::size_t i = 0; i < 48 * 48; ++i) {
    for (std::size_t channel = 0; channel < 3; ++channel) {
      ASSERT_EQ(pixels[channel * 48 * 48 + i], image.pixels[3 * i + channel]);
    }
  }
  EXPECT_EQ(names_in(folder_.path()), (std::vector<std::string>{"in", "set.h5"}));
}

TEST_F(PackDataset, WithoutLabelsAndWithMoreClassesThanAByteHolds) {
  add("a.png", "square.png");
  pack(options());
  EXPECT_EQ(ImageFile(folder_ / "set.h5").info().num_classes, 0);
  EXPECT_TRUE(ImageFile(folder_ / "set.h5").read_labels().empty());
  label(R"({"labels":null})");
  EXPECT_EQ(pack(options("null.h5")).num_classes, 0);
  EXPECT_EQ(slurp(folder_ / "null.h5"), slurp(folder_ / "set.h5"));
  label(R"({"labels":[["a.png",777]]})");
  PackOptions many = options("many.h5");
  many.num_classes = 1000;
  EXPECT_EQ(pack(many).num_classes, 1000);
  const ImageFile file(many.out);
  file.verify();
  EXPECT_EQ(file.read_labels(), (std::vector<std::int64_t>{777}));
}

TEST_F(PackDataset, AZipArchiveGivesTheBytesThatItsFolderGives) {
  add("b.png", "square.png");
  add("sub/a.png", "square.png");
  label(R"({"labels":[["b.png",1],["sub/a.png",0]]})");
  const std::string picture = slurp(kPictures + "square.png");
  spit(folder_ / "in.zip", stored_zip({{"dataset.json", slurp(in_ + "/dataset.json")},
                                       {"sub/a.png", picture},
                                       {"b.png", picture},
                                       {"read.me", "left out"}}));
  pack(options("folder.h5"));
  PackOptions zip = options("zip.h5");
  zip.in = folder_ / "in.zip";
  zip.jobs = 2;
  EXPECT_EQ(pack(zip).num_others, 1);
  EXPECT_EQ(slurp(folder_ / "zip.h5"), slurp(folder_ / "folder.h5"));
}

TEST_F(PackDataset, CropsAndResizesOnlyWhenAsked) {
  add("a.png", "rgb.png");  // 37x29
  expect_refused(options(), ErrorCode::kCorrupt,
                 {"a.png", "expected a square picture, found 37x29", "--crop center"});
  PackOptions asked = options();
  asked.crop = "center";
  EXPECT_EQ(pack(asked).side, 29);
  asked = options("small.h5");
  asked.crop = "center";
  asked.resolution = 16;
  expect_refused(asked, ErrorCode::kCorrupt, {"a.png", "expected 16x16, found 29x29", "--resize"});
  asked.resize = "lanczos";
  EXPECT_EQ(pack(asked).side, 16);
  asked = options("large.h5");
  asked.crop = "center";
  asked.resolution = 64;
  asked.resize = "box";
  expect_refused(asked, ErrorCode::kCorrupt,
                 {"expected at least 64x64, found 29x29", "never enlarged"});
}

TEST_F(PackDataset, GreyBecomesRgbOnlyWhenAsked) {
  add("a.png", "square.png");
  add("b.png", "grey.png");
  PackOptions asked = options();
  asked.crop = "center";
  asked.resolution = 29;
  asked.resize = "box";
  expect_refused(asked, ErrorCode::kCorrupt,
                 {"b.png: channels: expected 3, found 1", "--channels 3"});
  asked.channels = 3;
  EXPECT_EQ(pack(asked).channels, 3);
  asked.out = folder_ / "grey.h5";
  asked.channels = 1;
  expect_refused(asked, ErrorCode::kCorrupt, {"a.png: channels: expected 1, found 3"});
}

TEST_F(PackDataset, EveryBadPictureIsNamed) {
  for (const char* name : {"a.png", "c.png", "e.png"}) add(name, "square.png");
  const std::string whole = slurp(in_ + "/a.png");
  spit(in_ + "/b.png", whole.substr(0, whole.size() / 2));
  spit(in_ + "/d.png", "not a picture");
  add("f.jpg", "cmyk.jpg");
  add("g.png", "transparent.png");
  add("h.png", "sixteen_bits.png");
  expect_refused(options(), ErrorCode::kCorrupt,
                 {"5 of 8 pictures", "b.png: PNG: expected a whole one",
                  "d.png: expected a PNG or JPEG", "f.jpg: JPEG: expected grey",
                  "g.png: PNG: expected opaque", "h.png: PNG: expected at most 8 bits"});
}

TEST_F(PackDataset, MendedPicturesAreEnoughToGoOn) {
  for (const char* name : {"a.png", "c.png"}) add(name, "square.png");
  spit(in_ + "/b.png", "broken");
  expect_refused(options(), ErrorCode::kCorrupt, {"1 of 3", "b.png"});
  fs::copy_file(kPictures + "square.png", in_ + "/b.png", fs::copy_options::overwrite_existing);
  const PackResult result = pack(options());
  fs::rename(folder_ / "set.h5", folder_ / "mended.h5");
  EXPECT_EQ(pack(options()).sha256, result.sha256);
  EXPECT_EQ(slurp(folder_ / "set.h5"), slurp(folder_ / "mended.h5"));
}

TEST_F(PackDataset, OptionsThatDoNotFitAndFilesInTheWay) {
  add("a.png", "square.png");
  PackOptions wrong = options();
  wrong.resize = "bicubic";
  expect_refused(wrong, ErrorCode::kUsage, {"--resize: expected box or lanczos, found bicubic"});
  wrong.resize = "box";
  expect_refused(wrong, ErrorCode::kUsage, {"--resolution"});
  wrong = options();
  wrong.channels = 4;
  expect_refused(wrong, ErrorCode::kUsage, {"--channels: expected 1 or 3, found 4"});
  wrong = options();
  wrong.in = folder_ / "nothing";
  expect_refused(wrong, ErrorCode::kNotFound, {"nothing"});
  wrong.in = folder_ / "in/sub";
  expect_refused(wrong, ErrorCode::kNotFound, {"found none"});
  wrong = options("no/such/set.h5");
  expect_refused(wrong, ErrorCode::kNotFound, {"no/such"});
  spit(folder_ / "set.h5", "mine");
  EXPECT_EQ(error_of([&] { pack(options()); })->code, ErrorCode::kConflict);
  EXPECT_EQ(slurp(folder_ / "set.h5"), "mine");
}

// ---- Interruptions ------------------------------------------------------------------------------

class PackManyPictures : public PackDataset {
 protected:
  static constexpr int kCount = 1500;  // three blocks of the journal
  PackManyPictures() {
    for (int i = 0; i < kCount; ++i) {
      char name[32];
      std::snprintf(name, sizeof name, "%05d.png", i);
      fs::create_hard_link(template_, in_ + "/" + name);
    }
    fs::create_directories(folder_ / "once");
  }

  [[nodiscard]] std::string copied() const {
    const std::string path = folder_ / "template.png";
    fs::copy_file(kPictures + "square.png", path);
    return path;
  }

  const std::string template_ = copied();
};

TEST_F(PackManyPictures, AnyNumberOfThreadsGivesTheSameBytes) {
  pack(options("one.h5"));
  PackOptions three = options("three.h5");
  three.jobs = 3;
  pack(three);
  EXPECT_EQ(slurp(folder_ / "one.h5"), slurp(folder_ / "three.h5"));
}

// Killed before any of its writes, a run goes on where it was and ends with the same bytes.
TEST_F(PackManyPictures, KilledAtAnyWriteItGoesOn) {
  pack(options("whole.h5"));
  const std::string whole = slurp(folder_ / "whole.h5");
  std::int64_t most_reused = 0;
  for (int nth = 1; nth <= 7; ++nth) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      int calls = 0;
      set_fault_hook_for_tests([&](const char* call, const std::string&) {
        if (std::string(call) == "pwrite" && ++calls == nth) ::raise(SIGKILL);
        return 0;
      });
      pack(options());
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "write " << nth;
    EXPECT_FALSE(fs::exists(folder_ / "set.h5"));
    const PackResult result = pack(options());
    most_reused = std::max(most_reused, result.reused);
    EXPECT_EQ(slurp(folder_ / "set.h5"), whole) << "write " << nth;
    EXPECT_FALSE(fs::exists(folder_ / "set.h5.packing.journal.tmp"));
    fs::remove(folder_ / "set.h5");
  }
  EXPECT_GT(most_reused, kCount / 2);
}

// What the journal says is believed only when the pixels have the digest it states.
TEST_F(PackManyPictures, DamageBetweenTwoRunsIsPackedAgain) {
  pack(options("whole.h5"));
  {
    const FailNthCall fail(11, EIO);  // somewhere in the last block
    EXPECT_TRUE(error_of([&] { pack(options()); }));
  }
  const std::string work = folder_ / "set.h5.packing.tmp";
  const std::string content = slurp(work);
  spit(work, with_flipped_bit(content, 8 * (content.size() / 8)));
  pack(options());
  EXPECT_EQ(slurp(folder_ / "set.h5"), slurp(folder_ / "whole.h5"));
}

// ---- dataset.json
// ---------------------------------------------------------------------------------

TEST(DatasetLabels, ClassesAndOneHotLists) {
  const std::vector<std::string> names{"a/x.png", "b.png"};
  EXPECT_EQ(
      parse_dataset_labels(R"({"labels":[["b.png",4],["a\\x.png",0]]})", "j", names, 0).labels,
      (std::vector<std::int64_t>{0, 4}));
  const DatasetLabels one_hot = parse_dataset_labels(
      R"({"labels":[["b.png",[0,0,1,0]],["a/x.png",[1.0,0,0,0]]]})", "j", names, 0);
  EXPECT_EQ(one_hot.labels, (std::vector<std::int64_t>{0, 2}));
  EXPECT_EQ(one_hot.num_classes, 4);
  EXPECT_EQ(parse_dataset_labels(R"({"labels":null,"more":1})", "j", names, 0).num_classes, 0);
}

TEST(DatasetLabels, EverythingWrongIsNamedAtOnce) {
  const auto error = error_of([] {
    parse_dataset_labels(R"({"labels":[["a",0],["a",1],["b",-1],["c",[0,2]],["d"],["e",3]]})",
                         "in/dataset.json", {"a", "b", "f"}, 0);
  });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kCorrupt);
  EXPECT_THAT(error->message, AllOf(HasSubstr("in/dataset.json"),
                                    HasSubstr("/labels/1: expected one entry for \"a\", found two"),
                                    HasSubstr("/labels/2: expected a class"),
                                    HasSubstr("/labels/3: expected a one-hot list"),
                                    HasSubstr("/labels/4: expected [path, class]"),
                                    HasSubstr("\"e\": expected an image of that name"),
                                    HasSubstr("image \"f\": expected an entry"),
                                    HasSubstr("image \"b\": expected an entry")));
  for (const char* text :
       {"", "[]", "{}", R"({"labels":{}})", R"({"labels":[]})", R"({"labels":3})"}) {
    EXPECT_EQ(error_of([&] { parse_dataset_labels(text, "j", {"a"}, 0); })->code,
              ErrorCode::kCorrupt)
        << text;
  }
  EXPECT_THAT(
      error_of([] { parse_dataset_labels(R"({"labels":[["a",5]]})", "j", {"a"}, 3); })->message,
      HasSubstr("expected 3 classes, found class 5"));
}

}  // namespace
}  // namespace onestep
