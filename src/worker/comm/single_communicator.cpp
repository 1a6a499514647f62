#include "worker/comm/single_communicator.h"

#include <algorithm>

#include "common/error.h"

namespace onestep {
namespace {

void check_root(int root) {
  if (root != 0) {
    throw Error(ErrorCode::kInternal, "communicator: root: expected 0 in a process alone, found " + std::to_string(root));
  }
}

}  // namespace

void SingleCommunicator::broadcast(std::span<std::byte>, int root) { check_root(root); }

void SingleCommunicator::all_gather(std::span<const std::byte> mine, std::span<std::byte> all) {
  if (all.size() != mine.size()) {
    throw Error(ErrorCode::kInternal, "all_gather: expected room for " + std::to_string(mine.size()) +
                                          " bytes, found " + std::to_string(all.size()));
  }
  std::copy(mine.begin(), mine.end(), all.begin());
}

std::vector<std::string> SingleCommunicator::gather_texts(const std::string& mine, int root) {
  check_root(root);
  return {mine};
}

}  // namespace onestep
