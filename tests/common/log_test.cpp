#include "common/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cstdlib>
#include <sstream>
#include <thread>
#include <vector>

#include "common/error.h"

namespace onestep {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;

// The format is chosen once a process: each case logs in a child, whose standard error is the child's exit message.
void log_and_exit(const char* variable, const char* value, void (*work)()) {
  if (variable != nullptr) setenv(variable, value, 1);
  work();
  std::exit(0);
}

#define EXPECT_LOG(variable, value, work, pattern) \
  EXPECT_EXIT(log_and_exit(variable, value, work), testing::ExitedWithCode(0), pattern)

TEST(LogDeathTest, ALineSaysTimeLevelWhoAndWhat) {
  EXPECT_LOG(nullptr, nullptr, [] {
    set_log_context("distill-4 a1 r0");
    log_warning("half full");
  }, MatchesRegex("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z warning distill-4 a1 r0: half full\n"));
  EXPECT_LOG(nullptr, nullptr, [] { log_info("alone"); }, MatchesRegex("[^ ]+Z info alone\n"));
}

TEST(LogDeathTest, DebugLinesOnlyOnRequest) {
  const auto work = [] { log(LogLevel::kDebug, "details"); };
  EXPECT_LOG(nullptr, nullptr, work, testing::IsEmpty());
  EXPECT_LOG("ONESTEP_LOG_LEVEL", "debug", work, MatchesRegex("[^ ]+Z debug details\n"));
}

TEST(LogDeathTest, JsonLinesHoldAnyByte) {
  EXPECT_LOG("ONESTEP_LOG", "json", [] {
    set_log_context("r1");
    log_error("a \"quote\", a\nline, a byte \xff");
  }, testing::Truly([](const std::string& text) {
    const auto line = nlohmann::json::parse(text);
    return line.at("level") == "error" && line.at("who") == "r1" &&
           line.at("message") == "a \"quote\", a\nline, a byte \xef\xbf\xbd";
  }));
}

TEST(LogDeathTest, JsonLinesSayJobAttemptRankAndStep) {
  EXPECT_LOG("ONESTEP_LOG", "json", [] {
    set_log_context("distill a2 r1", {.job = "distill-4", .attempt = 2, .rank = 1});
    log_info("begun");
    set_log_step(30);
    log_info("done");
    log_info("another's", {.job = "teacher-2", .attempt = 1});
  }, testing::Truly([](const std::string& text) {
    std::istringstream stream(text);
    std::vector<nlohmann::json> lines;
    for (std::string line; std::getline(stream, line);) lines.push_back(nlohmann::json::parse(line));
    return lines.size() == 3 && lines[0].at("job") == "distill-4" && lines[0].at("attempt") == 2 && lines[0].at("rank") == 1 &&
           !lines[0].contains("step") && lines[1].at("step") == 30 && lines[2].at("job") == "teacher-2" && !lines[2].contains("rank");
  }));
}

TEST(LogDeathTest, TheFormatIsToldToWhatIsLaunched) {
  EXPECT_LOG(nullptr, nullptr, [] {
    set_log_format("json");
    log_info(std::getenv("ONESTEP_LOG"));
  }, HasSubstr("\"message\":\"json\""));
  EXPECT_THROW(set_log_format("xml"), Error);
}

TEST(LogDeathTest, LinesOfThreadsDoNotMix) {
  EXPECT_LOG(nullptr, nullptr, [] {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([] {
        for (int n = 0; n < 200; ++n) log_info(std::string(300, 'x'));
      });
    }
    for (std::thread& thread : threads) thread.join();
  }, testing::Truly([](const std::string& text) {
    std::istringstream lines(text);
    int count = 0;
    for (std::string line; std::getline(lines, line); ++count) {
      if (!line.ends_with(" info " + std::string(300, 'x'))) return false;
    }
    return count == 800;
  }));
}

}  // namespace
}  // namespace onestep
