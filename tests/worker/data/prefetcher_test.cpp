#include "worker/data/prefetcher.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <memory>

#include "common/error.h"

namespace onestep {
namespace {

TEST(Prefetcher, KeepsTheOrder) {
  Prefetcher<std::int64_t> prefetcher([](std::int64_t sequence) { return 10 * sequence; });
  for (std::int64_t i = 0; i < 1000; ++i) ASSERT_EQ(prefetcher.next(), 10 * i);
}

TEST(Prefetcher, WorksAheadButNotFurtherThanItsDepth) {
  std::atomic<int> made = 0;
  std::latch two_made(2);
  {
    Prefetcher<int> prefetcher(
        [&](std::int64_t) {
          const int number = made.fetch_add(1);
          if (number < 2) two_made.count_down();
          return number;
        },
        2);
    two_made.wait();  // nobody has called next() yet
  }
  EXPECT_EQ(made.load(), 2);  // the queue was full: the third was never begun
}

TEST(Prefetcher, AnErrorComesOutInItsTurnAndStays) {
  Prefetcher<int> prefetcher([](std::int64_t sequence) {
    if (sequence == 2) throw Error(ErrorCode::kCorrupt, "row 2");
    return static_cast<int>(sequence);
  });
  EXPECT_EQ(prefetcher.next(), 0);
  EXPECT_EQ(prefetcher.next(), 1);
  EXPECT_THROW(prefetcher.next(), Error);
  EXPECT_THROW(prefetcher.next(), Error);
}

TEST(Prefetcher, CountsTheTimeItIsWaitedFor) {
  std::latch go(1);
  Prefetcher<int> prefetcher([&](std::int64_t) {
    go.wait();
    return 1;
  });
  EXPECT_EQ(prefetcher.waited_s(), 0);
  go.count_down();
  prefetcher.next();
  EXPECT_GT(prefetcher.waited_s(), 0);
}

TEST(Prefetcher, MovesItemsThatCannotBeCopied) {
  Prefetcher<std::unique_ptr<int>> prefetcher(
      [](std::int64_t sequence) { return std::make_unique<int>(static_cast<int>(sequence)); });
  EXPECT_EQ(*prefetcher.next(), 0);
  EXPECT_EQ(*prefetcher.next(), 1);
}

}  // namespace
}  // namespace onestep
