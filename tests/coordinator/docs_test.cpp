// The operator's pages and the code name the same things: nothing that a coordinator says is left unexplained, and nothing is
// explained that it no longer says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <regex>
#include <set>
#include <sstream>

#include "common/locked_child.h"
#include "common/protocol.h"
#include "coordinator/api.h"
#include "coordinator/contract.h"
#include "coordinator/event_hub.h"
#include "coordinator/http_server.h"
#include "coordinator/job_state.h"
#include "coordinator/problem.h"
#include "coordinator/rank_watchdog.h"
#include "coordinator/telemetry_listener.h"
#include "coordinator/training_health.h"
#include "support/files.h"

namespace onestep {
namespace {

using Names = std::set<std::string>;
using testing::IsEmpty;
using testing::IsSupersetOf;

const std::string kRoot = ONESTEP_SOURCE_DIR;

// The rows of the tables beneath "## heading", each a list of cells.
std::vector<std::vector<std::string>> rows_below(const std::string& page, const std::string& heading) {
  std::istringstream lines(slurp(kRoot + "/docs/" + page));
  std::vector<std::vector<std::string>> rows;
  bool inside = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("## ")) inside = line == "## " + heading;
    if (!inside || !line.starts_with("| ")) continue;
    std::vector<std::string>& row = rows.emplace_back();
    std::istringstream cells(line.substr(2));
    for (std::string cell; std::getline(cells, cell, '|');) row.push_back(cell);
  }
  return rows;
}

// What stands in `backticks` in a text.
Names quoted(const std::string& text) {
  static const std::regex kQuoted("`([^`]+)`");
  Names names;
  for (std::sregex_iterator match(text.begin(), text.end(), kQuoted), end; match != end; ++match) names.insert((*match)[1]);
  return names;
}

Names first_cells(const std::string& page, const std::string& heading) {
  Names names;
  for (const auto& row : rows_below(page, heading)) names.merge(quoted(row.front()));
  return names;
}

Names sources_match(const std::string& folder, const std::regex& pattern) {
  Names found;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(kRoot + "/" + folder)) {
    if (entry.path().extension() != ".cpp" && entry.path().extension() != ".h") continue;
    const std::string text = slurp(entry.path().string());
    for (std::sregex_iterator match(text.begin(), text.end(), pattern), end; match != end; ++match) found.insert((*match)[1]);
  }
  return found;
}

TEST(OperationsPage, ExplainsEveryProblem) {
  const Names known(problem_names().begin(), problem_names().end());
  EXPECT_EQ(first_cells("operations.md", "Problems"), known);
  // No handler makes up a name of its own.
  const Names used = sources_match("src/coordinator", std::regex("problem\\(\\s*\\d+,\\s*\"([a-z_]+)\""));
  EXPECT_THAT(used, testing::Not(IsEmpty()));
  EXPECT_THAT(known, IsSupersetOf(used));
}

TEST(OperationsPage, ExplainsEveryAlarm) {
  Names known(training_alarm_codes().begin(), training_alarm_codes().end());
  known.insert(rank_alarm_codes().begin(), rank_alarm_codes().end());
  EXPECT_EQ(first_cells("operations.md", "Alarms"), known);
}

TEST(OperationsPage, ExplainsEveryState) {
  Names known;
  for (const JobState state : all_job_states()) known.insert(to_string(state));
  EXPECT_EQ(first_cells("operations.md", "Job states"), known);
  EXPECT_EQ(first_cells("rest.md", "States"), known);
}

TEST(RestPage, ListsEveryOperationAndEveryStatusOfAProblem) {
  Names calls, statuses = {"400", "401", "403", "404", "405", "431", "500", "503"};
  for (const Operation& operation : operations()) {
    calls.insert(operation.method + " " + operation.path);
    for (const int status : operation.problems) statuses.insert(std::to_string(status));
  }
  Names listed;
  for (std::string call : first_cells("rest.md", "The contract")) listed.insert(call.substr(0, call.find('?')));
  listed.erase("GET /");  // the dashboard's files
  EXPECT_EQ(listed, calls);
  Names told;
  for (const auto& row : rows_below("rest.md", "Errors")) {
    const std::string status = row.front().substr(0, 3);
    if (std::isdigit(static_cast<unsigned char>(status[0])) != 0) told.insert(status);
  }
  EXPECT_EQ(told, statuses);
}

// The page's figures are those of the program.
TEST(SecurityPage, TheLimitsAreTheProgramsOwn) {
  EXPECT_EQ(HttpLimits{}.header_bytes, 8U << 10);
  EXPECT_EQ(HttpLimits{}.body_bytes, 1U << 20);
  EXPECT_EQ(HttpLimits{}.timeout, std::chrono::seconds(30));
  EXPECT_EQ(HttpLimits{}.connections, 256);
  EXPECT_EQ(EventLimits{}.readers, 2048);
  EXPECT_EQ(EventLimits{}.queued_bytes, 1U << 20);
  EXPECT_EQ(EventLimits{}.log_bytes, 64 << 10);
  EXPECT_EQ(TelemetryLimits{}.hello_timeout, std::chrono::seconds(5));
  EXPECT_EQ(TelemetryLimits{}.queued_bytes, 4U << 20);
  EXPECT_EQ(TelemetryLimits{}.connections, 4096);
  EXPECT_EQ(kMaxFrameBytes, 1U << 20);
  EXPECT_EQ(ApiOptions{}.queue, 10'000);
  EXPECT_EQ(kMaxCurvePoints, 100'000);
  EXPECT_EQ(LockedChildLimits{}.time_s, 10);
  EXPECT_EQ(LockedChildLimits{}.memory_bytes, 1U << 30);
  EXPECT_EQ(kMaxTokenLabel, 100);
}

TEST(SecurityPage, EveryLimitHasATestThatIsThere) {
  Names tests;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(kRoot + "/tests")) tests.insert(entry.path().stem().string());
  int num_limits = 0;
  for (const auto& row : rows_below("security.md", "Limits")) {
    if (row.front().starts_with("what ") || row.front().starts_with("---")) continue;
    ++num_limits;
    ASSERT_EQ(row.size(), 4U) << row.front();
    const Names named = quoted(row[3]);
    EXPECT_THAT(named, testing::Not(IsEmpty())) << row.front();
    EXPECT_THAT(tests, IsSupersetOf(named)) << row.front();
  }
  EXPECT_GT(num_limits, 10);
}

}  // namespace
}  // namespace onestep
