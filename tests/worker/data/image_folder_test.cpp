#include "worker/data/image_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/files.h"
#include "support/temp_folder.h"
#include "worker/metrics/picture.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;

const Picture kPicture{2, 1, {1, 2, 3, 4, 5, 6}};

TEST(ImageFolder, ListsPicturesByName) {
  const TempFolder folder;
  std::filesystem::create_directory(folder / "b");
  write_png(folder / "b/x.png", kPicture);
  for (const char* name : {"c.JPG", "a.jpeg"}) spit(folder / name, "by its name");
  spit(folder / "dataset.json", "{}");
  const ImageFolder images(folder.path(), 0);
  ASSERT_EQ(images.size(), 3);
  EXPECT_TRUE(images.file(0).ends_with("/a.jpeg"));
  EXPECT_TRUE(images.file(1).ends_with("/b/x.png"));
  EXPECT_TRUE(images.file(2).ends_with("/c.JPG"));
  const auto expected = torch::tensor({1, 4, 2, 5, 3, 6}, torch::kUInt8).view({3, 1, 2});
  EXPECT_TRUE(torch::equal(images.read(1), expected));
  EXPECT_EQ(ImageFolder(folder.path(), 2).size(), 2);
}

TEST(ImageFolder, WhatIsMissingOrBrokenIsNamed) {
  const TempFolder folder;
  EXPECT_THAT(error_of([&] { ImageFolder(folder / "none", 0); })->message, HasSubstr("/none: expected a folder"));
  EXPECT_THAT(error_of([&] { ImageFolder(folder.path(), 0); })->message, HasSubstr("expected .png, .jpg or .jpeg files"));
  spit(folder / "a.png", "no picture");
  const ImageFolder images(folder.path(), 0);
  EXPECT_THAT(error_of([&] { static_cast<void>(images.read(0)); })->message, HasSubstr("/a.png: expected a PNG or JPEG file"));
}

}  // namespace
}  // namespace onestep
