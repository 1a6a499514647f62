#include "common/error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace onestep {
namespace {

using testing::HasSubstr;

// The documented table: code, exit status, whether a retry is pointless, name.
struct Row {
  ErrorCode code;
  int status;
  bool is_user_error;
  const char* name;
};
const std::vector<Row> kRows = {
    {ErrorCode::kInternal, 1, false, "internal"},
    {ErrorCode::kUsage, 2, true, "usage"},
    {ErrorCode::kConfig, 3, true, "config"},
    {ErrorCode::kNotFound, 4, true, "not_found"},
    {ErrorCode::kCorrupt, 4, true, "corrupt"},
    {ErrorCode::kMismatch, 4, true, "mismatch"},
    {ErrorCode::kIo, 5, false, "io"},
    {ErrorCode::kUnavailable, 6, false, "unavailable"},
    {ErrorCode::kJobFailed, 7, false, "job_failed"},
    {ErrorCode::kConflict, 8, false, "conflict"},
    {ErrorCode::kInterrupted, 9, false, "interrupted"},
};

TEST(Error, EachCodeHasItsExitStatusAndRetryRule) {
  for (const Row& row : kRows) {
    EXPECT_EQ(exit_status(row.code), row.status) << row.name;
    EXPECT_EQ(is_user_error(row.code), row.is_user_error) << row.name;
  }
}

TEST(Error, NamesGoThereAndBack) {
  for (const Row& row : kRows) {
    EXPECT_STREQ(to_string(row.code), row.name);
    EXPECT_EQ(error_code_from_string(row.name), row.code);
  }
  EXPECT_EQ(error_code_from_string("no such name"), ErrorCode::kInternal);
}

TEST(Error, CarriesCodeAndMessage) {
  const Error error(ErrorCode::kIo, "write a.h5: No space left on device");
  EXPECT_EQ(error.code(), ErrorCode::kIo);
  EXPECT_STREQ(error.what(), "write a.h5: No space left on device");
}

TEST(ConfigError, ListsEveryViolationALine) {
  const ConfigError error("job.json", {{"/dmd/batch", "expected an integer >= 1, found -3"},
                                       {"", "expected an object, found 7"}});
  EXPECT_EQ(error.code(), ErrorCode::kConfig);
  EXPECT_EQ(error.violations().size(), 2u);
  EXPECT_STREQ(error.what(),
               "job.json: 2 problems\n  /dmd/batch: expected an integer >= 1, found -3\n"
               "  /: expected an object, found 7");
  EXPECT_THAT(ConfigError("a", {{"/x", "y"}}).what(), HasSubstr("1 problem\n"));
}

}  // namespace
}  // namespace onestep
