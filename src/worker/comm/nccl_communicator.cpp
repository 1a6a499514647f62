#include "worker/comm/nccl_communicator.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include "common/error.h"
#include "worker/comm/collective_watch.h"
#include "worker/comm/recursive_halving.h"
#include "worker/tensors/cuda_launch.h"
#include "worker/tensors/device_launcher.h"
#include "worker/tensors/sum_grid.h"

namespace onestep {
namespace {

using Clock = CollectiveWatch::Clock;

constexpr std::chrono::milliseconds kPoll{100};

void check_nccl(ncclResult_t result, ncclComm_t comm, const char* call) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  throw Error(ErrorCode::kInternal, std::string(call) + ": " + ncclGetErrorString(result) + ": " + ncclGetLastError(comm));
}
#define CHECK_NCCL(call, comm) check_nccl(call, comm, #call)

// A communicator that does not block says "in progress" until what was asked for has happened: still so at the deadline.
ncclResult_t settle(ncclComm_t comm, Clock::time_point deadline) {
  ncclResult_t state = ncclInProgress;
  while (true) {
    const ncclResult_t asked = ncclCommGetAsyncError(comm, &state);
    if (asked != ncclSuccess) return asked;
    if (state != ncclInProgress || Clock::now() >= deadline) return state;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

bool is_recording(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

// Marks a place in a stream.
class StreamMark {
 public:
  explicit StreamMark(cudaStream_t stream) {
    check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    check_cuda(cudaEventRecord(event_, stream), "cudaEventRecord");
  }
  StreamMark(const StreamMark&) = delete;
  StreamMark& operator=(const StreamMark&) = delete;
  ~StreamMark() { cudaEventDestroy(event_); }
  // What has failed has ended, too; the next CUDA call tells.
  [[nodiscard]] bool passed() const { return cudaEventQuery(event_) != cudaErrorNotReady; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace

NcclId make_nccl_id() {
  ncclUniqueId id;
  static_assert(sizeof id == sizeof(NcclId));
  CHECK_NCCL(ncclGetUniqueId(&id), nullptr);
  NcclId bytes;
  std::memcpy(bytes.data(), &id, sizeof id);
  return bytes;
}

struct NcclCommunicator::Handle {
  Handle(int rank, int size, const NcclLimits& given) : limits(given), watch(rank, size, given.collective) {}

  NcclLimits limits;
  ncclComm_t comm = nullptr;
  int device = 0;
  float* incoming = nullptr;  // grown outside of graphs only
  std::size_t incoming_floats = 0;
  CollectiveWatch watch;
  std::mutex mutex;
  std::condition_variable changed;
  bool stopping = false;
  std::string failure;  // guarded by mutex; said once by check()
  std::mutex using_comm;
  std::atomic<bool> aborted = false;
  std::thread watchdog;

  // Once: the kernels under way then end, and whoever waits for the stream goes on. Afterwards there is no communicator.
  void abort() {
    const std::lock_guard lock(using_comm);
    if (comm != nullptr && !aborted.exchange(true)) ncclCommAbort(comm);
  }
  // What the training thread asks of NCCL, and until it has been accepted.
  template <class Ask>
  void ask(const char* what, Ask ask_it) {
    const std::lock_guard lock(using_comm);
    if (aborted) throw Error(ErrorCode::kInternal, std::string(what) + ": the communicator was aborted");
    ask_it();
    const ncclResult_t state = settle(comm, Clock::now() + limits.start);
    if (state == ncclInProgress) {
      throw Error(ErrorCode::kInternal, std::string(what) + ": NCCL has not taken it after " + std::to_string(limits.start.count()) + " s");
    }
    check_nccl(state, comm, what);
  }
  void look() {
    std::string found;
    ncclResult_t state = ncclSuccess;
    if (!aborted && ncclCommGetAsyncError(comm, &state) == ncclSuccess && state != ncclSuccess && state != ncclInProgress) {
      found = std::string("NCCL: ") + ncclGetErrorString(state) + ": " + ncclGetLastError(comm);
    } else if (const auto stuck = watch.poll(Clock::now())) {
      found = *stuck;
    }
    if (found.empty()) return;
    abort();
    const std::lock_guard lock(mutex);
    failure = found;
    stopping = true;
  }
  void run_watchdog() {
    cudaSetDevice(device);
    while (true) {
      {
        std::unique_lock lock(mutex);
        if (changed.wait_for(lock, kPoll, [this] { return stopping; })) return;
      }
      look();
    }
  }
};

NcclCommunicator::NcclCommunicator(const NcclId& bytes, int rank, int size, const NcclLimits& limits)
    : rank_(rank), size_(size), handle_(std::make_unique<Handle>(rank, size, limits)) {
  check_cuda(cudaGetDevice(&handle_->device), "cudaGetDevice");
  ncclUniqueId id;
  std::memcpy(&id, bytes.data(), sizeof id);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const auto deadline = Clock::now() + limits.start;
  CHECK_NCCL(ncclCommInitRankConfig(&handle_->comm, size, id, rank, &config), nullptr);
  const ncclResult_t state = settle(handle_->comm, deadline);
  if (state != ncclSuccess) {
    const std::string why = state == ncclInProgress ? "some rank has not arrived after " + std::to_string(limits.start.count()) + " s"
                                                    : std::string(ncclGetErrorString(state)) + ": " + ncclGetLastError(handle_->comm);
    handle_->abort();
    throw Error(ErrorCode::kInternal, "NCCL: rank " + std::to_string(rank) + " of " + std::to_string(size) + " cannot start: " + why);
  }
  handle_->watchdog = std::thread([handle = handle_.get()] { handle->run_watchdog(); });
}

NcclCommunicator::~NcclCommunicator() {
  {
    const std::lock_guard lock(handle_->mutex);
    handle_->stopping = true;
  }
  handle_->changed.notify_all();
  if (handle_->watchdog.joinable()) handle_->watchdog.join();
  handle_->abort();
  if (handle_->incoming != nullptr) cudaFree(handle_->incoming);
}

void NcclCommunicator::check() {
  const std::lock_guard lock(handle_->mutex);
  if (!handle_->failure.empty()) throw Error(ErrorCode::kInternal, handle_->failure);
}

void NcclCommunicator::watch(const std::string& name) {
  check();
  const cudaStream_t stream = current_stream();
  if (is_recording(stream)) return;  // marks inside a graph say nothing about its replays
  handle_->watch.started(name, Clock::now(), [mark = std::make_shared<StreamMark>(stream)] { return mark->passed(); });
}

void NcclCommunicator::swap(int partner, const float* send, float* receive, std::size_t count) {
  const cudaStream_t stream = current_stream();
  const ncclComm_t comm = handle_->comm;
  handle_->ask("NCCL: send and receive", [&] {
    CHECK_NCCL(ncclGroupStart(), comm);
    CHECK_NCCL(ncclSend(send, count, ncclFloat, partner, comm, stream), comm);
    CHECK_NCCL(ncclRecv(receive, count, ncclFloat, partner, comm, stream), comm);
    CHECK_NCCL(ncclGroupEnd(), comm);
  });
}

void NcclCommunicator::swap_and_add(int partner, const float* send, float* keep, std::size_t count) {
  if (handle_->incoming_floats < count) {
    const cudaStream_t stream = current_stream();
    if (is_recording(stream)) {
      throw Error(ErrorCode::kInternal, "NCCL: a sum of " + std::to_string(count) + " floats is recorded before it has run once");
    }
    check_cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    if (handle_->incoming != nullptr) check_cuda(cudaFree(std::exchange(handle_->incoming, nullptr)), "cudaFree");
    check_cuda(cudaMalloc(reinterpret_cast<void**>(&handle_->incoming), count * sizeof(float)), "cudaMalloc");
    handle_->incoming_floats = count;
  }
  swap(partner, send, handle_->incoming, count);
  AddFloats add;
  add.into = keep;
  add.from = handle_->incoming;
  add.count = static_cast<std::int64_t>(count);
  DeviceLauncher<AddFloats>::function(add, add.grid());
}

void NcclCommunicator::reduce_scatter_tree(std::span<float> buffer) {
  check();
  halve_and_add(*this, rank_, size_, buffer);
  watch("canonical sum of " + std::to_string(buffer.size()) + " floats");
}

void NcclCommunicator::all_gather_pieces(std::span<float> buffer) {
  check();
  gather_halves(*this, rank_, size_, buffer);
  watch("all-gather of " + std::to_string(buffer.size()) + " floats");
}

void NcclCommunicator::all_reduce_fast(std::span<float> buffer) {
  check();
  handle_->ask("NCCL: all-reduce", [&] {
    CHECK_NCCL(ncclAllReduce(buffer.data(), buffer.data(), buffer.size(), ncclFloat, ncclSum, handle_->comm, current_stream()), handle_->comm);
  });
  watch("all-reduce of " + std::to_string(buffer.size()) + " floats");
}

}  // namespace onestep
