// Run whole under mpirun with 1, 2, 4 and 8 ranks; every rank checks against what one process computes alone.
#include "worker/comm/communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>

#include "common/error.h"
#include "common/hash.h"
#include "worker/comm/canonical_reduce.h"
#include "worker/comm/make_communicator.h"
#include "worker/comm/mpi_communicator.h"
#include "worker/comm/mpi_session.h"
#include "worker/comm/vote.h"

namespace onestep {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;

constexpr std::int64_t kLeaves = 16;  // M
constexpr std::size_t kLength = 16 * 1024 * 3;

MpiSession* session = nullptr;

std::vector<float> leaf_gradient(std::int64_t leaf) {
  std::mt19937 generator(static_cast<unsigned>(100 + leaf));
  std::uniform_real_distribution<float> mantissa(-1, 1);
  std::uniform_int_distribution<int> exponent(-12, 12);
  std::vector<float> values(kLength);
  for (float& value : values) value = std::ldexp(mantissa(generator), exponent(generator));
  return values;
}

std::vector<float> slow_tree(std::int64_t first, std::int64_t count) {
  if (count == 1) return leaf_gradient(first);
  std::vector<float> sum = slow_tree(first, count / 2);
  const std::vector<float> right = slow_tree(first + count / 2, count / 2);
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += right[i];
  return sum;
}

std::string digest(std::span<const float> values) { return sha256(values.data(), values.size_bytes()); }

// This rank's sum of its own contiguous leaves.
std::vector<float> local_sum(const Communicator& communicator) {
  TreeAccumulator tree(kLength);
  const std::int64_t count = kLeaves / communicator.size();
  for (std::int64_t i = 0; i < count; ++i) tree.add(leaf_gradient(communicator.rank() * count + i));
  const auto sum = tree.finish();
  return {sum.begin(), sum.end()};
}

class CommunicatorTest : public testing::Test {
 protected:
  MpiCommunicator communicator_{*session};
};

TEST_F(CommunicatorTest, SumHasTheBitsOfTheSequentialTree) {
  const std::vector<float> expected = slow_tree(0, kLeaves);
  for (const std::size_t chunk : {std::size_t{1} << 20, std::size_t{1000}, std::size_t{1}, std::size_t{4097}}) {
    if (chunk == 1 && communicator_.size() > 2) continue;  // a message a float: slow where ranks share a core
    MpiCommunicator chunked(*session, chunk);
    std::vector<float> buffer = local_sum(chunked);
    chunked.reduce_scatter_tree(buffer);
    const PieceRange piece = chunked.piece_range(kLength);
    const auto first = static_cast<std::size_t>(piece.offset), length = static_cast<std::size_t>(piece.length);
    EXPECT_EQ(digest(std::span(buffer).subspan(first, length)), digest(std::span(expected).subspan(first, length)))
        << "chunk of " << chunk;
    chunked.all_gather_pieces(buffer);
    EXPECT_EQ(digest(buffer), digest(expected)) << "chunk of " << chunk;
  }
}

TEST_F(CommunicatorTest, FastSumAgreesWithinRounding) {
  const std::vector<float> expected = slow_tree(0, kLeaves);
  std::vector<float> buffer = local_sum(communicator_);
  communicator_.all_reduce_fast(buffer);
  // Any order of 16 summands is within 15 roundings of the sum of magnitudes, here below 16 * 2^12.
  for (std::size_t i = 0; i < kLength; ++i) ASSERT_NEAR(buffer[i], expected[i], 15 * 65536 * 6e-8) << i;
}

TEST_F(CommunicatorTest, OddLengthThatCannotBeHalvedIsRefusedEverywhere) {
  std::vector<float> buffer(1025);
  if (communicator_.size() == 1) {
    EXPECT_NO_THROW(communicator_.reduce_scatter_tree(buffer));
  } else {
    EXPECT_THROW(communicator_.reduce_scatter_tree(buffer), Error);
    EXPECT_THROW(communicator_.all_gather_pieces(buffer), Error);
  }
}

TEST_F(CommunicatorTest, EmptyBufferIsFine) {
  EXPECT_NO_THROW(communicator_.reduce_scatter_tree({}));
  EXPECT_NO_THROW(communicator_.all_gather_pieces({}));
}

TEST_F(CommunicatorTest, ScalarTreeHasTheSameBitsAtAnyRankCount) {
  std::vector<double> leaves;  // [kLeaves][2]
  std::mt19937 generator(3);
  for (std::int64_t i = 0; i < 2 * kLeaves; ++i) {
    leaves.push_back(std::exp(std::normal_distribution<double>(0, 8)(generator)));
  }
  const auto tree = [&](std::size_t figure) {
    std::vector<double> level;
    for (std::size_t i = 0; i < kLeaves; ++i) level.push_back(leaves[2 * i + figure]);
    while (level.size() > 1) {
      std::vector<double> up;
      for (std::size_t i = 0; i < level.size(); i += 2) up.push_back(level[i] + level[i + 1]);
      level = up;
    }
    return level[0];
  };
  const std::size_t count = leaves.size() / static_cast<std::size_t>(communicator_.size());
  const auto by_rank = std::span(leaves).subspan(static_cast<std::size_t>(communicator_.rank()) * count, count);
  EXPECT_THAT(tree_sums(communicator_, by_rank, kLeaves, 2), ElementsAre(tree(0), tree(1)));

  const PieceRange piece = communicator_.piece_range(2 * kLeaves);
  const auto by_piece =
      std::span(leaves).subspan(static_cast<std::size_t>(piece.offset), static_cast<std::size_t>(piece.length));
  EXPECT_THAT(tree_sums(communicator_, by_piece, kLeaves, 2, LeafOrder::kPieces), ElementsAre(tree(0), tree(1)));
}

TEST_F(CommunicatorTest, VotesArriveInRankOrder) {
  Vote mine;
  mine.stop = communicator_.rank() == communicator_.size() - 1 ? 1 : 0;
  mine.bytes = static_cast<std::uint64_t>(communicator_.rank()) + (std::uint64_t{1} << 40);
  std::memset(mine.sha256, 'a' + communicator_.rank(), sizeof mine.sha256);
  const auto votes = vote(communicator_, mine);
  ASSERT_EQ(votes.size(), static_cast<std::size_t>(communicator_.size()));
  for (std::size_t rank = 0; rank < votes.size(); ++rank) {
    EXPECT_EQ(votes[rank].stop, rank + 1 == votes.size() ? 1 : 0);
    EXPECT_EQ(votes[rank].bytes, rank + (std::uint64_t{1} << 40));
    EXPECT_EQ(votes[rank].sha256[63], static_cast<char>('a' + rank));
  }
}

TEST_F(CommunicatorTest, TextsOfAnyLengthAreGathered) {
  const auto text_of = [](int rank) { return std::string(static_cast<std::size_t>(rank) * 1000, static_cast<char>('a' + rank)); };
  const int root = communicator_.size() - 1;
  const auto texts = communicator_.gather_texts(text_of(communicator_.rank()), root);
  if (communicator_.rank() != root) {
    EXPECT_TRUE(texts.empty());
    return;
  }
  std::vector<std::string> expected;
  for (int rank = 0; rank < communicator_.size(); ++rank) expected.push_back(text_of(rank));
  EXPECT_THAT(texts, ElementsAreArray(expected));
}

TEST_F(CommunicatorTest, TextOfTheRootReachesAll) {
  const int root = communicator_.size() - 1;
  EXPECT_EQ(communicator_.broadcast_text(communicator_.rank() == root ? "the chosen one" : "", root), "the chosen one");
  EXPECT_EQ(communicator_.broadcast_text(communicator_.rank() == root ? "" : "not this", root), "");
}

TEST_F(CommunicatorTest, GatherRefusesTheWrongRoom) {
  const std::vector<std::byte> mine(4);
  std::vector<std::byte> all(4 * static_cast<std::size_t>(communicator_.size()) + 1);
  EXPECT_THROW(communicator_.all_gather(mine, all), Error);
}

}  // namespace
}  // namespace onestep

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (!onestep::launched_by_mpi()) {
    std::fprintf(stderr, "run this under mpirun\n");
    return 1;
  }
  onestep::MpiSession mpi;
  onestep::session = &mpi;
  const int failed = RUN_ALL_TESTS();
  // A rank whose checks failed must fail the run, whatever the others found.
  if (failed != 0) onestep::abort_mpi(1);
  return failed;
}
