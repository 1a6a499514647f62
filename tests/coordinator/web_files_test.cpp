// What the dashboard's files may and may not have in them; how they look is tested in a browser (tests/web).
#include "coordinator/web_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

#include "coordinator/web_table.h"

namespace onestep {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(WebFiles, ThePageIsThere) {
  ASSERT_NE(web_file("/"), nullptr);
  EXPECT_EQ(web_file("/")->content_type, "text/html; charset=utf-8");
  EXPECT_EQ(web_file("/main.js")->content_type, "text/javascript; charset=utf-8");
  EXPECT_THAT(std::string(web_file("/chart.js")->bytes), HasSubstr("Chart.js v3.9"));
  EXPECT_EQ(web_file("/nothing"), nullptr);
  EXPECT_EQ(web_file("/../main.js"), nullptr);
}

// The policy forbids what a careless change would bring in.
TEST(WebFiles, NothingIsInlineAndNothingFromElsewhere) {
  EXPECT_THAT(std::string(content_security_policy()), Not(HasSubstr("unsafe")));
  for (const WebTableRow& row : web_table()) {
    if (row.path == "/chart.js") continue;
    std::string text(row.bytes);
    text = std::regex_replace(text, std::regex("http://www\\.w3\\.org/2000/svg"), "");
    EXPECT_THAT(text, Not(HasSubstr("http://"))) << row.path;
    EXPECT_THAT(text, Not(HasSubstr("https://"))) << row.path;
    EXPECT_THAT(text, Not(HasSubstr("innerHTML"))) << row.path << ": texts come from jobs";
    EXPECT_FALSE(std::regex_search(text, std::regex("eval\\(|new Function"))) << row.path;
  }
  const std::string page(web_file("/")->bytes);
  EXPECT_FALSE(std::regex_search(page, std::regex("<script[^>]*>[^<]"))) << "inline script";
  EXPECT_FALSE(std::regex_search(page, std::regex("<style|\\sstyle=|\\son[a-z]+="))) << "inline style or handler";
}

// Every file that one names is part of the program.
TEST(WebFiles, WhatIsNamedIsThere) {
  static const std::regex kNames("(?:src|href)=\"([a-z.]+)\"|from \"\\./([a-z.]+)\"");
  int num_names = 0;
  for (const WebTableRow& row : web_table()) {
    if (row.path == "/chart.js") continue;
    const std::string text(row.bytes);
    for (std::sregex_iterator name(text.begin(), text.end(), kNames), end; name != end; ++name) {
      const std::string file = "/" + (*name)[1].str() + (*name)[2].str();
      EXPECT_NE(web_file(file), nullptr) << row.path << " names " << file;
      ++num_names;
    }
  }
  EXPECT_GT(num_names, 10);
}

}  // namespace
}  // namespace onestep
