#include "worker/run/gather_bytes.h"

#include <algorithm>
#include <cstdint>
#include <span>

namespace onestep {

std::vector<std::string> gather_bytes(Communicator& communicator, const std::string& mine, int root) {
  const auto ranks = static_cast<std::size_t>(communicator.size());
  const std::size_t piece = (std::size_t{1} << 30) / ranks;  // a round is at most 1 GiB
  const std::uint64_t length = mine.size();
  std::vector<std::uint64_t> lengths(ranks);
  communicator.all_gather(std::as_bytes(std::span(&length, 1)), std::as_writable_bytes(std::span(lengths)));
  const std::size_t longest = *std::max_element(lengths.begin(), lengths.end());
  std::vector<std::string> all(communicator.rank() == root ? ranks : 0);
  for (std::size_t first = 0; first < longest; first += piece) {
    const auto round = communicator.gather_texts(first < mine.size() ? mine.substr(first, piece) : "", root);
    for (std::size_t rank = 0; rank < round.size(); ++rank) all[rank] += round[rank];
  }
  return all;
}

}  // namespace onestep
