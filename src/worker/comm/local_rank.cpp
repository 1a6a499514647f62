#include "worker/comm/local_rank.h"

#include <charconv>

#include "common/error.h"

namespace onestep {

std::optional<int> local_rank(const Environment& environment) {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID", "PMIX_RANK"}) {
    const char* value = environment(name);
    if (value == nullptr) continue;
    const std::string text = value;
    int rank = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rank);
    if (error != std::errc() || end != text.data() + text.size() || rank < 0) {
      throw Error(ErrorCode::kUsage, std::string(name) + ": expected a rank, found \"" + text + "\"");
    }
    return rank;
  }
  return std::nullopt;
}

int device_of_rank(int num_visible_devices, int local_rank) {
  if (num_visible_devices == 1) return 0;
  if (local_rank < num_visible_devices) return local_rank;
  throw Error(ErrorCode::kConflict, "rank " + std::to_string(local_rank) + " of this host: expected a GPU for each rank, found " +
                                        std::to_string(num_visible_devices) +
                                        " visible; start fewer ranks a host, or look at CUDA_VISIBLE_DEVICES");
}

}  // namespace onestep
