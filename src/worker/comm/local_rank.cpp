#include "worker/comm/local_rank.h"

#include <charconv>
#include <sstream>

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

std::optional<int> local_slot(const Environment& environment) {
  const std::optional<int> rank = local_rank(environment);
  const char* slots = environment("ONESTEP_LOCAL_SLOTS");
  if (slots == nullptr) return rank;
  std::istringstream words(slots);
  std::string word;
  for (int i = 0; i <= rank.value_or(0); ++i) word = std::getline(words, word, ',') ? word : "";
  int slot = -1;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), slot);
  if (error != std::errc() || end != word.data() + word.size() || slot < 0) {
    throw Error(ErrorCode::kUsage, std::string("ONESTEP_LOCAL_SLOTS: expected a slot for each local rank, found \"") + slots + "\" for local rank " +
                                       std::to_string(rank.value_or(0)));
  }
  return slot;
}

int device_of_rank(int num_visible_devices, int local_slot) {
  if (num_visible_devices == 1) return 0;
  if (local_slot < num_visible_devices) return local_slot;
  throw Error(ErrorCode::kConflict, "rank " + std::to_string(local_slot) + " of this host: expected a GPU for each rank, found " +
                                        std::to_string(num_visible_devices) +
                                        " visible; start fewer ranks a host, or look at CUDA_VISIBLE_DEVICES");
}

}  // namespace onestep
