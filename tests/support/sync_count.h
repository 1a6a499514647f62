// Counts the calls that wait for the disk, thread by thread. It defines fsync and fdatasync for the whole program, SQLite's calls
// included: to be included by one file of a test.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

namespace onestep {

inline thread_local int num_syncs = 0;  // of this thread, ever

}  // namespace onestep

extern "C" int fsync(int descriptor) {
  ++onestep::num_syncs;
  return static_cast<int>(::syscall(SYS_fsync, descriptor));
}

extern "C" int fdatasync(int descriptor) {
  ++onestep::num_syncs;
  return static_cast<int>(::syscall(SYS_fdatasync, descriptor));
}
