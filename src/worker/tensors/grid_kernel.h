// A kernel as plain C++: what every thread of a block does between two barriers. nvcc compiles it for the device (cuda_launch.cu); run_on_host() runs
// the same source block by block and thread by thread, so that the arithmetic and the order of every sum are tested without a GPU.
//
// A kernel is a struct of plain values and pointers with
//   using Shared = float;                    what a block shares: Grid::shared of them
//   struct Thread {...};                     what a thread keeps from one phase to the next
//   static constexpr int kPhases = N;        a barrier lies between two phases
//   static constexpr std::int32_t kMaxThreads = N;   a block
//   template <class Ops> constexpr void run(int phase, const Place& place, Thread& mine, Shared* shared) const;
// Within a phase no thread may read what another one writes. constexpr makes it callable on both sides.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/tensors/host_ops.h"

namespace onestep {

struct Grid {
  std::int64_t blocks = 1;
  std::int32_t threads = 1;   // a block; at most 1,024
  std::int64_t shared = 0;    // values of the kernel's Shared a block
};

struct Place {
  std::int64_t block = 0;
  std::int32_t thread = 0, threads = 1;
};

template <class Kernel>
void run_on_host(const Kernel& kernel, const Grid& grid) {
  std::vector<typename Kernel::Shared> shared(static_cast<std::size_t>(grid.shared));
  for (std::int64_t block = 0; block < grid.blocks; ++block) {
    std::vector<typename Kernel::Thread> threads(static_cast<std::size_t>(grid.threads));
    for (int phase = 0; phase < Kernel::kPhases; ++phase) {
      for (std::int32_t thread = 0; thread < grid.threads; ++thread) {
        kernel.template run<HostOps>(phase, Place{block, thread, grid.threads}, threads[static_cast<std::size_t>(thread)], shared.data());
      }
    }
  }
}

// Phases of a tree over at most 2^kSteps rows of a block; a step adds the upper half to the lower one.
// Row r < half takes row r + half; for phase 0 .. kSteps-1, half is 2^(kSteps-1), ..., 2, 1.
template <int kSteps>
constexpr std::int32_t tree_half(int step) {
  return std::int32_t{1} << (kSteps - 1 - step);
}

constexpr std::int64_t blocks_of(std::int64_t count, std::int64_t each) { return (count + each - 1) / each; }

}  // namespace onestep
