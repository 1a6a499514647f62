#include "worker/comm/mpi_communicator.h"

#include <mpi.h>

#include <algorithm>
#include <array>
#include <climits>
#include <numeric>
#include <utility>

#include "common/error.h"
#include "worker/comm/add_floats.h"
#include "worker/comm/recursive_halving.h"

namespace onestep {
namespace {

constexpr int kTag = 1;
constexpr std::size_t kMaxCount = std::size_t{1} << 28;  // elements a call: MPI counts are ints

// One chunk under way in both directions.
struct Swap {
  std::array<MPI_Request, 2> requests = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};

  void start(MPI_Comm world, int partner, const float* send, float* receive, std::size_t count) {
    const int floats = static_cast<int>(count);
    CHECK_MPI(MPI_Irecv(receive, floats, MPI_FLOAT, partner, kTag, world, &requests[0]));
    CHECK_MPI(MPI_Isend(send, floats, MPI_FLOAT, partner, kTag, world, &requests[1]));
  }
  void wait() { CHECK_MPI(MPI_Waitall(2, requests.data(), MPI_STATUSES_IGNORE)); }
};

}  // namespace

struct MpiCommunicator::Handle {
  MPI_Comm world = MPI_COMM_NULL;
};

MpiCommunicator::MpiCommunicator(const MpiSession&, std::size_t chunk_floats)
    : handle_(std::make_unique<Handle>()), chunk_floats_(std::clamp<std::size_t>(chunk_floats, 1, kMaxCount)) {
  CHECK_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &handle_->world));
  CHECK_MPI(MPI_Comm_set_errhandler(handle_->world, MPI_ERRORS_RETURN));
  CHECK_MPI(MPI_Comm_rank(handle_->world, &rank_));
  CHECK_MPI(MPI_Comm_size(handle_->world, &size_));
}

// Freeing is collective in MPI and may wait for ranks that are on their way to an abort; MPI_Finalize frees it as well.
MpiCommunicator::~MpiCommunicator() = default;

void MpiCommunicator::barrier() { CHECK_MPI(MPI_Barrier(handle_->world)); }

void MpiCommunicator::broadcast(std::span<std::byte> bytes, int root) {
  while (!bytes.empty()) {
    const std::size_t count = std::min(bytes.size(), kMaxCount);
    CHECK_MPI(MPI_Bcast(bytes.data(), static_cast<int>(count), MPI_BYTE, root, handle_->world));
    bytes = bytes.subspan(count);
  }
}

void MpiCommunicator::all_gather(std::span<const std::byte> mine, std::span<std::byte> all) {
  if (all.size() != mine.size() * static_cast<std::size_t>(size_) || mine.size() > kMaxCount) {
    throw Error(ErrorCode::kInternal, "all_gather: expected room for " + std::to_string(size_) + " times " +
                                          std::to_string(mine.size()) + " bytes (at most " +
                                          std::to_string(kMaxCount) + " each), found " + std::to_string(all.size()));
  }
  const int bytes = static_cast<int>(mine.size());
  CHECK_MPI(MPI_Allgather(mine.data(), bytes, MPI_BYTE, all.data(), bytes, MPI_BYTE, handle_->world));
}

std::vector<std::string> MpiCommunicator::gather_texts(const std::string& mine, int root) {
  const std::uint64_t length = mine.size();
  std::vector<std::uint64_t> lengths(static_cast<std::size_t>(size_));
  all_gather(std::as_bytes(std::span(&length, 1)), std::as_writable_bytes(std::span(lengths)));
  const std::uint64_t total = std::accumulate(lengths.begin(), lengths.end(), std::uint64_t{0});
  if (total > INT_MAX) {
    throw Error(ErrorCode::kInternal, "gather_texts: expected at most " + std::to_string(INT_MAX) +
                                          " bytes from all ranks, found " + std::to_string(total));
  }
  const std::vector<int> counts(lengths.begin(), lengths.end());
  std::vector<int> offsets(counts.size());
  std::exclusive_scan(counts.begin(), counts.end(), offsets.begin(), 0);
  std::string all(rank_ == root ? total : 0, '\0');
  CHECK_MPI(MPI_Gatherv(mine.data(), static_cast<int>(length), MPI_BYTE, all.data(), counts.data(), offsets.data(),
                        MPI_BYTE, root, handle_->world));
  std::vector<std::string> texts;
  if (rank_ != root) return texts;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    texts.push_back(all.substr(static_cast<std::size_t>(offsets[i]), static_cast<std::size_t>(counts[i])));
  }
  return texts;
}

void MpiCommunicator::reduce_scatter_tree(std::span<float> buffer) { halve_and_add(*this, rank_, size_, buffer); }

// Sends `send`, receives as much and adds it to `keep`, in chunks: the next is under way while the last is added.
void MpiCommunicator::swap_and_add(int partner, const float* send, float* keep, std::size_t length) {
  const std::size_t chunk = std::min(chunk_floats_, std::max<std::size_t>(length, 1));
  if (incoming_.size() < 2 * chunk) incoming_.resize(2 * chunk);
  std::array<Swap, 2> swaps;
  const auto count_at = [&](std::size_t begin) { return std::min(chunk, length - begin); };
  const auto start = [&](std::size_t begin) {
    const std::size_t slot = begin / chunk % 2;
    swaps[slot].start(handle_->world, partner, send + begin, incoming_.data() + slot * chunk, count_at(begin));
  };
  if (length > 0) start(0);
  for (std::size_t begin = 0; begin < length; begin += chunk) {
    if (begin + chunk < length) start(begin + chunk);
    const std::size_t slot = begin / chunk % 2;
    swaps[slot].wait();
    add_floats(keep + begin, incoming_.data() + slot * chunk, count_at(begin));
  }
}

void MpiCommunicator::swap(int partner, const float* send, float* receive, std::size_t length) {
  for (std::size_t begin = 0; begin < length; begin += kMaxCount) {
    Swap swap;
    swap.start(handle_->world, partner, send + begin, receive + begin, std::min(kMaxCount, length - begin));
    swap.wait();
  }
}

void MpiCommunicator::all_gather_pieces(std::span<float> buffer) { gather_halves(*this, rank_, size_, buffer); }

void MpiCommunicator::all_reduce_fast(std::span<float> buffer) {
  while (!buffer.empty()) {
    const std::size_t count = std::min(buffer.size(), kMaxCount);
    CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, buffer.data(), static_cast<int>(count), MPI_FLOAT, MPI_SUM, handle_->world));
    buffer = buffer.subspan(count);
  }
}

}  // namespace onestep
