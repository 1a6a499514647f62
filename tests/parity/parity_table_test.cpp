#include "parity/parity_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "common/durable_file.h"
#include "parity/row_differences.h"
#include "support/parity.h"

namespace onestep {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

ParityRecord row_of(const std::string& component, double forward) {
  return {component, "a package 1.0", "two images", kRelativeNorm, "", ParitySide{forward, 1e-5}, ParitySide{2e-6, 1e-4}};
}

std::vector<ParityRecord> a_row_each() {
  std::vector<ParityRecord> rows;
  for (const ParityComponent& component : parity_components()) rows.push_back(row_of(component.name, 1e-7));
  return rows;
}

TEST(ParityDocument, ComesBackAsItWasWritten) {
  auto rows = a_row_each();
  rows[1].backward.reset();
  rows[1].no_backward = "none: ids";
  const std::string document = parity_document(rows);
  const auto read = rows_of_document(document);
  ASSERT_EQ(read.size(), rows.size());
  EXPECT_EQ(read[0].component, rows[0].component);
  EXPECT_EQ(read[0].inputs, "two images");
  EXPECT_EQ(read[0].forward->difference, 1e-7);
  EXPECT_EQ(read[0].backward->bound, 1e-4);
  EXPECT_EQ(read[1].no_backward, "none: ids");
  EXPECT_EQ(parity_document(read), document);
  EXPECT_THAT(document, Not(HasSubstr("FAILS")));
}

TEST(ParityDocument, FaultsAreNamed) {
  auto rows = a_row_each();
  rows[0].forward->difference = 2e-5;
  rows[2].backward->difference = std::numeric_limits<double>::quiet_NaN();
  rows[3].forward.reset();
  rows[4].backward.reset();
  const std::string lost = rows.back().component;
  rows.back().component = "warp drive";
  const auto faults = parity_faults(rows);
  EXPECT_THAT(faults, Contains(HasSubstr("forward: expected at most 1e-05, found 2e-05")));
  EXPECT_THAT(faults, Contains(HasSubstr("backward: expected at most 0.0001, found nan")));
  EXPECT_THAT(faults, Contains(HasSubstr("forward: nothing was compared")));
  EXPECT_THAT(faults, Contains(HasSubstr("no reason is given")));
  EXPECT_THAT(faults, Contains(HasSubstr(lost + ": no row")));
  EXPECT_THAT(faults, Contains(HasSubstr("warp drive")));
  EXPECT_EQ(faults.size(), 6u);
  EXPECT_THAT(parity_document(rows), HasSubstr("FAILS"));
  EXPECT_THAT(parity_faults(rows_of_document(parity_document(rows))), Contains(HasSubstr("no reason is given")));
}

TEST(ParityDocument, LostAndStaleRowsAreNamed) {
  auto document = a_row_each(), recorded = document;
  recorded[0].forward->difference *= 2;  // another machine
  EXPECT_THAT(row_differences(document, recorded), IsEmpty());
  recorded[1].inputs = "three images";
  recorded[2].backward.reset();
  recorded[2].no_backward = "none: ids";
  const auto lines = row_differences(document, recorded);
  EXPECT_EQ(lines.size(), 4u);
  EXPECT_THAT(lines, Contains(HasSubstr("not in the document: " + recorded[1].component + " | a package 1.0 | three images")));
  EXPECT_THAT(lines, Contains(HasSubstr("no test records: " + document[1].component + " | a package 1.0 | two images")));
  document.push_back(document[0]);
  EXPECT_EQ(row_differences(document, a_row_each()).size(), 1u);  // twice in the document, once recorded
}

// The committed table: every component, nothing beyond its bound.
TEST(ParityDocument, CommittedOneHasNoFaults) {
  EXPECT_THAT(parity_faults(rows_of_document(read_file(ONESTEP_SOURCE_DIR "/docs/parity.md"))), IsEmpty());
}

// What ParityRow records and GoogleTest writes.
TEST(ParityRow, IsReadFromAReport) {
  const nlohmann::json value = {{"component", "heun"}, {"reference", "x"}, {"inputs", "y"}, {"measure", "z"}, {"no_backward", "none"},
                                {"forward", {{"difference", 1e-9}, {"bound", 1e-6}}}, {"backward", nullptr}};
  const nlohmann::json test = {{"name", "T"}, {"result", "COMPLETED"}, {"parity0", value.dump()}, {"other", "1"}};
  const nlohmann::json report = {{"testsuites", {{{"name", "S"}, {"testsuite", {test}}}}}};
  const auto rows = recorded_rows(report);
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].component, "heun");
  EXPECT_EQ(rows[0].forward->difference, 1e-9);
  EXPECT_FALSE(rows[0].backward);
}

TEST(ParityRow, KeepsTheDifferenceNearestToItsBound) {
  {
    ParityRow row({"KID", "x", "y", kAbsolute, "none"});
    row.forward(1e-8, 1e-3);
    row.forward(1e-9, 1e-8);
    row.forward(0, 0);
  }
  const auto* result = testing::UnitTest::GetInstance()->current_test_info()->result();
  ASSERT_EQ(result->test_property_count(), 1);
  const auto recorded = nlohmann::json::parse(result->GetTestProperty(0).value());
  EXPECT_EQ(recorded.at("forward").at("bound"), 1e-8);
}

}  // namespace
}  // namespace onestep
