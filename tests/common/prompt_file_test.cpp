#include "common/prompt_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/hash.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class PromptFiles : public ::testing::Test {
 protected:
  PromptFile read(const std::string& name, const std::string& content) {
    spit(folder_ / name, content);
    return read_prompt_file(folder_ / name);
  }
  std::string refusal(const std::string& name, const std::string& content) {
    const auto error = error_of([&] { read(name, content); });
    if (!error) return "";
    EXPECT_EQ(error->code, ErrorCode::kCorrupt);
    EXPECT_THAT(error->message, HasSubstr(folder_ / name));
    return error->message;
  }
  TempFolder folder_;
};

TEST_F(PromptFiles, ATextALineWithOrWithoutTheLastNewline) {
  const std::string content = "a photo of a cat\n  zwei  Katzen \xC3\xA4\nan\told \"tree\"";
  const PromptFile prompts = read("prompts.txt", content);
  EXPECT_THAT(prompts.texts, ElementsAre("a photo of a cat", "  zwei  Katzen \xC3\xA4", "an\told \"tree\""));
  EXPECT_EQ(prompts.sha256, sha256(content));
  EXPECT_EQ(read("ended.txt", content + "\n").texts, prompts.texts);
}

TEST_F(PromptFiles, JsonLines) {
  EXPECT_THAT(read("prompts.jsonl", "{\"text\": \"a cat\"}\n{\"text\":\"ein \\u00e4\"}\n").texts, ElementsAre("a cat", "ein \xC3\xA4"));
}

TEST_F(PromptFiles, WhatIsNoPromptIsNamedByItsLine) {
  EXPECT_THAT(refusal("a.txt", ""), HasSubstr("expected a prompt a line, found none"));
  const std::string several = refusal("b.txt", "good\n\nbad \xFF\nwindows\r\n" + std::string(65537, 'x'));
  EXPECT_THAT(several, HasSubstr("4 lines are no prompts"));
  EXPECT_THAT(several, HasSubstr("line 2: expected a text, found an empty one"));
  EXPECT_THAT(several, HasSubstr("line 3: expected UTF-8, found other bytes"));
  EXPECT_THAT(several, HasSubstr("line 4: expected no control character, found byte 13 at 7"));
  EXPECT_THAT(several, HasSubstr("line 5: expected at most 65536 bytes, found 65537"));
  const std::string json = refusal(
      "c.jsonl", "{\"text\": \"\"}\n{\"txt\": \"a\"}\n{\"text\": 3}\n[\"a\"]\n{\"text\": \"a\"\n{\"text\": \"a\", \"url\": \"b\"}\n\n{\"text\": \"ok\"}\n");
  EXPECT_THAT(json, HasSubstr("7 lines are no prompts"));
  for (int line = 1; line <= 7; ++line) EXPECT_THAT(json, HasSubstr("line " + std::to_string(line) + ": "));
  EXPECT_THAT(json, HasSubstr("/url"));
  EXPECT_EQ(error_of([&] { read_prompt_file(folder_ / "none.txt"); })->code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace onestep
