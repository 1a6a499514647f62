#include "cli/text.h"

#include <gtest/gtest.h>

#include <cmath>

namespace onestep {
namespace {

TEST(Text, Thousands) {
  EXPECT_EQ(with_thousands(0), "0");
  EXPECT_EQ(with_thousands(999), "999");
  EXPECT_EQ(with_thousands(1000), "1,000");
  EXPECT_EQ(with_thousands(-1234567), "-1,234,567");
  EXPECT_EQ(with_thousands(-123), "-123");
}

TEST(Text, SignificantDigits) {
  EXPECT_EQ(significant(0.012345, 3), "0.0123");
  EXPECT_EQ(significant(12345.6, 3), "12346");
  EXPECT_EQ(significant(1.996, 3), "2.00");
  EXPECT_EQ(significant(0.0, 3), "0.00");
  EXPECT_EQ(significant(NAN, 3), "nan");
}

TEST(Text, ClockTime) {
  EXPECT_EQ(clock_time(7.4), "0:07");
  EXPECT_EQ(clock_time(754), "12:34");
  EXPECT_EQ(clock_time(3723), "1:02:03");
  EXPECT_EQ(clock_time(-1), "-");
  EXPECT_EQ(clock_time(NAN), "-");
}

TEST(Text, BarIsFullOnlyAtTheEnd) {
  EXPECT_EQ(bar(0, 4), "[----]");
  EXPECT_EQ(bar(0.5, 4), "[##--]");
  EXPECT_EQ(bar(0.99, 4), "[###-]");
  EXPECT_EQ(bar(1, 4), "[####]");
  EXPECT_EQ(bar(7, 4), "[####]");
  EXPECT_EQ(bar(NAN, 4), "[----]");
}

TEST(Text, TableAlignsByWhatIsSeen) {
  EXPECT_EQ(table({{"", "é"}, {"row", "12"}}, 1), "      é\nrow  12\n");
  EXPECT_EQ(table({{"a", "b"}, {"long"}}, 2), "a     b\nlong\n");
}

}  // namespace
}  // namespace onestep
