// What every rank tells every other once an iteration, so that all of them do the same next.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/comm/communicator.h"

namespace onestep {

struct Vote {
  std::uint8_t error = 0;        // this rank can't go on
  std::uint8_t stop = 0;         // this rank was asked to save and end
  std::uint8_t checkpoint = 0;   // this rank was asked to save
  std::uint8_t writer_done = 0;  // this rank's checkpoint shard is durable; the next two describe it
  std::uint64_t bytes = 0;
  char sha256[64] = {};          // hex digits, no terminator
};

// Every rank's vote, in the order of ranks. One all-gather; collective.
std::vector<Vote> vote(Communicator& communicator, const Vote& mine);

}  // namespace onestep
