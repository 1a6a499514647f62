#include "coordinator/data_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "common/error.h"

namespace onestep {

DataLock::DataLock(const std::string& data) {
  const std::string path = data + "/coordinator.lock";
  // Close-on-exec: a worker that outlives the coordinator must not keep the lock.
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) {
    throw Error(ErrorCode::kIo, path + ": open failed; " + std::strerror(errno));
  }
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    const int cause = errno;
    ::close(descriptor_);
    if (cause == EWOULDBLOCK) {
      throw Error(ErrorCode::kConflict,
                  data + " is in use by another coordinator (it holds " + path +
                      "); one coordinator per data folder: stop that one or choose another --data");
    }
    throw Error(ErrorCode::kIo, path + ": flock failed; " + std::strerror(cause));
  }
}

DataLock::DataLock(DataLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

DataLock& DataLock::operator=(DataLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

DataLock::~DataLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace onestep
