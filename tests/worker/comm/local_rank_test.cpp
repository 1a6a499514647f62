#include "worker/comm/local_rank.h"

#include <gtest/gtest.h>

#include <map>

#include "common/error.h"

namespace onestep {
namespace {

Environment of(const std::map<std::string, std::string>& variables) {
  return [variables](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
}

TEST(LocalRank, IsReadFromWhoeverStartedTheRank) {
  EXPECT_EQ(local_rank(of({{"SLURM_LOCALID", "3"}, {"PMIX_RANK", "7"}})), 3);
  EXPECT_EQ(local_rank(of({{"OMPI_COMM_WORLD_LOCAL_RANK", "1"}, {"SLURM_LOCALID", "0"}})), 1) << "mpirun inside a Slurm job";
  EXPECT_EQ(local_rank(of({{"PMIX_RANK", "2"}})), 2);
  EXPECT_EQ(local_rank(of({})), std::nullopt);
  EXPECT_THROW(local_rank(of({{"SLURM_LOCALID", "x"}})), Error);
  EXPECT_THROW(local_rank(of({{"SLURM_LOCALID", "-1"}})), Error);
}

TEST(LocalRank, ALauncherMayGiveRanksOtherSlotsThanTheirNumbers) {
  EXPECT_EQ(local_slot(of({{"SLURM_LOCALID", "1"}, {"ONESTEP_LOCAL_SLOTS", "2,5"}})), 5);
  EXPECT_EQ(local_slot(of({{"ONESTEP_LOCAL_SLOTS", "3"}})), 3) << "a process alone";
  EXPECT_EQ(local_slot(of({{"SLURM_LOCALID", "1"}})), 1);
  EXPECT_EQ(local_slot(of({})), std::nullopt);
  for (const char* wrong : {"", "2", "2,", "2,x", "2,-1", "2,5x"}) {
    EXPECT_THROW(local_slot(of({{"SLURM_LOCALID", "1"}, {"ONESTEP_LOCAL_SLOTS", wrong}})), Error) << wrong;
  }
}

TEST(LocalRank, OneVisibleDeviceIsTheRanksOwn) {
  EXPECT_EQ(device_of_rank(1, 3), 0);
  EXPECT_EQ(device_of_rank(4, 3), 3);
  EXPECT_THROW(device_of_rank(2, 2), Error);
  EXPECT_THROW(device_of_rank(0, 0), Error);
}

}  // namespace
}  // namespace onestep
