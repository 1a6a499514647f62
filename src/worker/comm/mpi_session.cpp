#include "worker/comm/mpi_session.h"

#include <mpi.h>

#include <array>
#include <cstdlib>
#include <exception>

#include "common/error.h"

namespace onestep {

bool launched_by_mpi() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

MpiSession::MpiSession() : num_exceptions_(std::uncaught_exceptions()) {
  int provided = MPI_THREAD_SINGLE;
  CHECK_MPI(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided));
  if (provided < MPI_THREAD_FUNNELED) {
    throw Error(ErrorCode::kInternal, "MPI_Init_thread: thread level: expected at least MPI_THREAD_FUNNELED (" +
                                          std::to_string(MPI_THREAD_FUNNELED) + "), found " + std::to_string(provided));
  }
}

MpiSession::~MpiSession() {
  if (std::uncaught_exceptions() == num_exceptions_) MPI_Finalize();
}

void abort_mpi(int status) {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (initialized != 0 && finalized == 0) MPI_Abort(MPI_COMM_WORLD, status);
}

void check_mpi(int result, const char* call) {
  if (result == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(result, text.data(), &length);
  throw Error(ErrorCode::kInternal, std::string(call) + ": " + std::string(text.data(), static_cast<std::size_t>(length)));
}

}  // namespace onestep
