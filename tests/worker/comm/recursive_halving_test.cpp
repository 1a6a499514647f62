// Ranks as threads of one process, and a transport of our own: the template that MPI and NCCL share.
#include "worker/comm/recursive_halving.h"

#include <gtest/gtest.h>

#include <cmath>
#include <condition_variable>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "common/error.h"
#include "worker/comm/add_floats.h"

namespace onestep {
namespace {

// What ranks send each other: one box for each direction of each pair.
class Mailboxes {
 public:
  void send(int from, int to, std::vector<float> values) {
    const std::lock_guard lock(mutex_);
    boxes_[{from, to}].push_back(std::move(values));
    arrived_.notify_all();
  }
  std::vector<float> receive(int from, int to) {
    std::unique_lock lock(mutex_);
    auto& box = boxes_[{from, to}];
    arrived_.wait(lock, [&] { return !box.empty(); });
    std::vector<float> values = std::move(box.front());
    box.erase(box.begin());
    return values;
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<std::pair<int, int>, std::vector<std::vector<float>>> boxes_;
};

class ThreadTransport {
 public:
  ThreadTransport(Mailboxes& boxes, int rank) : boxes_(boxes), rank_(rank) {}
  void swap(int partner, const float* send, float* receive, std::size_t count) {
    num_sent_ += count;
    boxes_.send(rank_, partner, {send, send + count});
    const auto values = boxes_.receive(partner, rank_);
    EXPECT_EQ(values.size(), count);
    std::copy(values.begin(), values.end(), receive);
  }
  void swap_and_add(int partner, const float* send, float* keep, std::size_t count) {
    std::vector<float> incoming(count);
    swap(partner, send, incoming.data(), count);
    add_floats(keep, incoming.data(), count);
  }
  [[nodiscard]] std::size_t num_sent() const { return num_sent_; }

 private:
  Mailboxes& boxes_;
  int rank_;
  std::size_t num_sent_ = 0;
};

// Floats of very different size: any other order of additions shows in the bits.
std::vector<float> values_of_rank(int rank, std::size_t length) {
  std::mt19937 generator(static_cast<unsigned>(rank + 1));
  std::uniform_real_distribution<float> mantissa(-1, 1);
  std::uniform_int_distribution<int> exponent(-12, 12);
  std::vector<float> values(length);
  for (float& value : values) value = std::ldexp(mantissa(generator), exponent(generator));
  return values;
}

std::vector<float> tree_of_ranks(int first, int count, std::size_t length) {
  if (count == 1) return values_of_rank(first, length);
  auto sum = tree_of_ranks(first, count / 2, length);
  const auto right = tree_of_ranks(first + count / 2, count / 2, length);
  for (std::size_t i = 0; i < length; ++i) sum[i] += right[i];
  return sum;
}

class RecursiveHalving : public testing::TestWithParam<int> {};

TEST_P(RecursiveHalving, EveryRankEndsWithTheTreesBits) {
  const int size = GetParam();
  const std::size_t length = 48 * static_cast<std::size_t>(size);
  const std::vector<float> expected = tree_of_ranks(0, size, length);
  Mailboxes boxes;
  std::vector<std::vector<float>> buffers;
  std::vector<std::size_t> sent(static_cast<std::size_t>(size));
  for (int rank = 0; rank < size; ++rank) buffers.push_back(values_of_rank(rank, length));
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.emplace_back([&, rank] {
      ThreadTransport transport(boxes, rank);
      auto& buffer = buffers[static_cast<std::size_t>(rank)];
      halve_and_add(transport, rank, size, buffer);
      sent[static_cast<std::size_t>(rank)] = transport.num_sent();
      const PieceRange piece = piece_of_rank(rank, size, static_cast<std::int64_t>(length));
      for (std::int64_t i = piece.offset; i < piece.offset + piece.length; ++i) {
        EXPECT_EQ(buffer[static_cast<std::size_t>(i)], expected[static_cast<std::size_t>(i)]);
      }
      gather_halves(transport, rank, size, buffer);
    });
  }
  for (std::thread& rank : ranks) rank.join();
  for (int rank = 0; rank < size; ++rank) {
    EXPECT_EQ(buffers[static_cast<std::size_t>(rank)], expected) << "rank " << rank;
    // No more than the best reduce-scatter sends.
    EXPECT_EQ(sent[static_cast<std::size_t>(rank)], length - length / static_cast<std::size_t>(size));
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, RecursiveHalving, testing::Values(1, 2, 4, 8, 16));

TEST(RecursiveHalving, RefusesWhatCannotBeHalved) {
  Mailboxes boxes;
  ThreadTransport transport(boxes, 0);
  std::vector<float> buffer(9);
  EXPECT_THROW(halve_and_add(transport, 0, 3, buffer), Error);
  EXPECT_THROW(halve_and_add(transport, 0, 2, buffer), Error);
}

}  // namespace
}  // namespace onestep
