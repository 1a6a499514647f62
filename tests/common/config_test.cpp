#include "common/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

namespace onestep {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<std::string> texts_of(const std::vector<Violation>& violations) {
  std::vector<std::string> texts;
  for (const Violation& violation : violations)
    texts.push_back(violation.pointer + ": " + violation.message);
  return texts;
}

template <class Call>
std::string message_of(ErrorCode code, Call call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

TEST(ConfigReader, ReadsEveryTypeAndFallsBackOnlyWhenAbsent) {
  ConfigReader reader(
      {{"i", 3}, {"n", 0.5}, {"b", true}, {"t", "x"}, {"c", "red"}, {"li", {1, 2}}, {"lt", {"a"}}},
      "");
  EXPECT_EQ(reader.integer("i", 9, 0, 10), 3);
  EXPECT_EQ(reader.integer("absent_i", 9, 0, 10), 9);
  EXPECT_EQ(reader.number("n", 1.0, 0, 1), 0.5);
  EXPECT_EQ(reader.number("i", 1.0, 0, 10), 3.0);
  EXPECT_TRUE(reader.boolean("b", false));
  EXPECT_EQ(reader.text("t", ""), "x");
  EXPECT_EQ(reader.choice("c", "blue", {"blue", "red"}), "red");
  EXPECT_THAT(reader.integers("li", {}, 0, 5), ElementsAre(1, 2));
  EXPECT_THAT(reader.texts("lt", {}), ElementsAre("a"));
  EXPECT_EQ(reader.required_text("t"), "x");
  EXPECT_EQ(reader.required_integer("i", 0, 5), 3);
  EXPECT_NO_THROW(reader.finish("test"));
}

TEST(ConfigReader, ReportsEveryWrongValueAtOnceWithExpectedAndFound) {
  ConfigReader reader({{"i", 2.0},
                       {"j", 11},
                       {"n", "1"},
                       {"b", 1},
                       {"t", 7},
                       {"c", "rde"},
                       {"li", {1, 99}},
                       {"lt", {1}},
                       {"big", 18446744073709551615u}},
                      "/jobs/2");
  EXPECT_EQ(reader.integer("i", 9, 0, 10), 9);
  reader.integer("j", 9, 0, 10);
  reader.number("n", 1.0, 0.25, 1);
  reader.boolean("b", false);
  reader.text("t", "");
  reader.choice("c", "blue", {"blue", "red"});
  reader.integers("li", {}, 0, 5);
  reader.texts("lt", {});
  reader.integer("big", 1, 1, std::numeric_limits<std::int64_t>::max());
  reader.required_text("r");
  EXPECT_THAT(
      texts_of(reader.violations()),
      ElementsAre("/jobs/2/i: expected an integer from 0 to 10, found 2.0",
                  "/jobs/2/j: expected an integer from 0 to 10, found 11",
                  "/jobs/2/n: expected a finite number from 0.25 to 1, found \"1\"",
                  "/jobs/2/b: expected true or false, found 1",
                  "/jobs/2/t: expected a string, found 7",
                  "/jobs/2/c: expected one of blue, red, found \"rde\"; did you mean 'red'?",
                  "/jobs/2/li: expected a list of integers from 0 to 5, found [1,99]",
                  "/jobs/2/lt: expected a list of strings, found [1]",
                  "/jobs/2/big: expected an integer >= 1, found 18446744073709551615",
                  "/jobs/2/r: expected a string that is not empty, found nothing (required)"));
  EXPECT_THROW(reader.finish("test"), ConfigError);
}

TEST(ConfigReader, RefusesNumbersThatAreNotFinite) {
  ConfigReader reader({{"a", std::nan("")}, {"b", INFINITY}}, "");
  EXPECT_EQ(reader.number("a", 4.0, 0, 10), 4.0);
  EXPECT_EQ(reader.number("b", 5.0, 0, std::numeric_limits<double>::max()), 5.0);
  EXPECT_THAT(texts_of(reader.violations()),
              ElementsAre("/a: expected a finite number from 0 to 10, found nan",
                          "/b: expected a finite number >= 0, found inf"));
}

TEST(ConfigReader, HintsAtTheNearestKnownKey) {
  ConfigReader reader({{"bacth", 1}, {"entirely_different", 2}, {"a/b", 3}}, "/dmd");
  reader.integer("batch", 1, 1, 8);
  reader.integer("pairs", 1, 1, 8);
  reader.reject_unknown_keys();
  EXPECT_THAT(texts_of(reader.violations()),
              ElementsAre("/dmd/a~1b: unknown key; expected one of: batch, pairs",
                          "/dmd/bacth: unknown key; did you mean 'batch'?",
                          "/dmd/entirely_different: unknown key; expected one of: batch, pairs"));
}

TEST(ConfigReader, NestedObjectsReportUnderTheirOwnPointer) {
  ConfigReader reader({{"dmd", {{"bath", 1}}}, {"flat", 3}}, "");
  ConfigReader dmd = reader.object("dmd");
  EXPECT_EQ(dmd.integer("batch", 7, 1, 8), 7);
  reader.absorb(dmd);
  ConfigReader flat = reader.object("flat");
  EXPECT_EQ(flat.integer("x", 5, 1, 8), 5);
  reader.absorb(flat);
  ConfigReader absent = reader.object("absent");
  reader.absorb(absent);
  EXPECT_THAT(texts_of(reader.violations()),
              ElementsAre("/dmd/bath: unknown key; did you mean 'batch'?",
                          "/flat: expected an object, found 3"));
}

TEST(ParseJson, ReadsNestedDocuments) {
  const json document =
      parse_json(R"({"a": [1, -2, {"b": 0.5}], "c": {"d": null, "e": "x"}, "f": true})", "t");
  EXPECT_EQ(document,
            json::parse(R"({"a": [1, -2, {"b": 0.5}], "c": {"d": null, "e": "x"}, "f": true})"));
  EXPECT_TRUE(document["a"][0].is_number_integer());
}

TEST(ParseJson, NamesLineAndColumnOfASyntaxError) {
  const std::string text = message_of(
      ErrorCode::kConfig, [] { parse_json("{\n  \"a\": 1,\n  \"b\" 2\n}", "job.json"); });
  EXPECT_THAT(text, HasSubstr("job.json: "));
  EXPECT_THAT(text, HasSubstr("line 3, column 7"));
}

TEST(ParseJson, RefusesDuplicateKeysWithTheirPlace) {
  const std::string text = message_of(ErrorCode::kConfig, [] {
    parse_json("{\"x\": {\"a\": 1,\n \"a\": 2}, \"a\": 3}", "job.json");
  });
  EXPECT_THAT(text, HasSubstr("line 2"));
  EXPECT_THAT(text, HasSubstr("duplicate key 'a'"));
  // The same key in two objects is no duplicate.
  EXPECT_NO_THROW(parse_json(R"([{"a": 1}, {"a": 2}])", "t"));
}

TEST(ParseJson, RefusesDepthOverSixtyFour) {
  EXPECT_NO_THROW(parse_json(std::string(64, '[') + std::string(64, ']'), "t"));
  const std::string text =
      message_of(ErrorCode::kConfig, [] { parse_json(std::string(100'000, '['), "t"); });
  EXPECT_THAT(text, HasSubstr("at most 64 levels"));
}

TEST(ParseJson, RefusesTrailingTextEmptyTextBadUtf8AndNumbersTooLarge) {
  for (const char* bad :
       {"{} x", "", "{\"a\": 1,}", "// c\n{}", "{\"a\": NaN}", "[1e999]", "[\"\xff\"]"}) {
    const std::string text = message_of(ErrorCode::kConfig, [bad] { parse_json(bad, "t"); });
    // The message goes into JSON documents: it must be plain text.
    EXPECT_NO_THROW(static_cast<void>(json(text).dump())) << bad;
  }
}

TEST(ReadJsonFile, NamesTheMissingFile) {
  const std::string text =
      message_of(ErrorCode::kNotFound, [] { read_json_file("/nonexistent/folder/job.json"); });
  EXPECT_THAT(text, HasSubstr("/nonexistent/folder/job.json"));
}

TEST(ReadJsonFile, ReadsWhatIsThere) {
  const std::string path = testing::TempDir() + "/config_test_document.json";
  std::ofstream(path) << R"({"a": 1})";
  EXPECT_EQ(read_json_file(path), (json{{"a", 1}}));
  std::ofstream(path) << "{";
  EXPECT_THAT(message_of(ErrorCode::kConfig, [&path] { read_json_file(path); }), HasSubstr(path));
}

TEST(ApplyOverride, SetsExistingAndNewFields) {
  json document = {{"dmd", {{"batch", 1}}}, {"list", {1, 2}}};
  apply_override(document, "dmd.batch=64");
  apply_override(document, "dmd.new.deep=0.5");
  apply_override(document, "name=digits");
  apply_override(document, "list.1=[3]");
  apply_override(document, "path=a=b");
  EXPECT_EQ(document, (json{{"dmd", {{"batch", 64}, {"new", {{"deep", 0.5}}}}},
                            {"list", {1, {3}}},
                            {"name", "digits"},
                            {"path", "a=b"}}));
  EXPECT_TRUE(document["dmd"]["batch"].is_number_integer());
}

TEST(ApplyOverride, RefusesWhatCannotBeSet) {
  for (const char* bad : {"dmd.batch", "=3", "dmd..x=1", "dmd.batch.x=1", "list.2=1", "list.x=1"}) {
    json document = {{"dmd", {{"batch", 1}}}, {"list", {1, 2}}};
    EXPECT_THAT(message_of(ErrorCode::kUsage, [&] { apply_override(document, bad); }),
                HasSubstr(bad));
  }
}

TEST(ResolvePath, ResolvesAgainstTheBaseAndKeepsReferences) {
  EXPECT_EQ(resolve_path("../../build/x.h5", "/p/configs/digits"), "/p/build/x.h5");
  EXPECT_EQ(resolve_path("/abs/./x", "/p"), "/abs/x");
  EXPECT_EQ(resolve_path("runs/", "/p"), "/p/runs");
  EXPECT_EQ(resolve_path(".", "/p"), "/p");
  EXPECT_EQ(resolve_path("@teacher", "/p"), "@teacher");
  EXPECT_EQ(resolve_path("", "/p"), "");
}

}  // namespace
}  // namespace onestep
