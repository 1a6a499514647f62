// MPI begins and ends with an object.
#pragma once

#include <string>

namespace onestep {

// True in a process that mpirun or srun started: OMPI_COMM_WORLD_SIZE, PMIX_RANK or PMI_RANK is in the environment.
bool launched_by_mpi();

// MPI_Init_thread (funneled) and MPI_Finalize. One a process. While an exception unwinds it, it does not finalize, which would
// wait for ranks that wait for this one: the handler is to call abort_mpi().
class MpiSession {
 public:
  // Errors: kInternal.
  MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
  ~MpiSession();

 private:
  int num_exceptions_;
};

// Ends every rank with `status` where MPI is running; returns where it is not.
void abort_mpi(int status);

// Throws kInternal naming `call` unless `result` is MPI_SUCCESS.
void check_mpi(int result, const char* call);
#define CHECK_MPI(call) ::onestep::check_mpi((call), #call)

}  // namespace onestep
