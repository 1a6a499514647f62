// One coordinator per data folder.
#pragma once

#include <string>

namespace onestep {

// An advisory lock on <data>/coordinator.lock, held until destruction or the end of the process.
// Move-only.
class DataLock {
 public:
  // Errors: kConflict when another process holds it; kIo.
  explicit DataLock(const std::string& data);
  DataLock(DataLock&& other) noexcept;
  DataLock& operator=(DataLock&& other) noexcept;
  DataLock(const DataLock&) = delete;
  DataLock& operator=(const DataLock&) = delete;
  ~DataLock();

 private:
  int descriptor_ = -1;
};

}  // namespace onestep
