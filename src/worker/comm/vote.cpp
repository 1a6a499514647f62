#include "worker/comm/vote.h"

#include <cstddef>
#include <span>
#include <type_traits>

namespace onestep {

static_assert(std::is_trivially_copyable_v<Vote>);

std::vector<Vote> vote(Communicator& communicator, const Vote& mine) {
  std::vector<Vote> all(static_cast<std::size_t>(communicator.size()));
  communicator.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)));
  return all;
}

}  // namespace onestep
