// What every file that speaks to the HDF5 library needs: identifiers closed by scope, no output of its own, its reasons.
#pragma once

#include <hdf5.h>

#include <string>
#include <utility>

#include "common/error.h"

namespace onestep {

// An HDF5 identifier for the length of a scope.
class Hdf5Handle {
 public:
  Hdf5Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  Hdf5Handle(Hdf5Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Hdf5Handle(const Hdf5Handle&) = delete;
  Hdf5Handle& operator=(const Hdf5Handle&) = delete;
  Hdf5Handle& operator=(Hdf5Handle&&) = delete;
  ~Hdf5Handle() {
    if (id_ >= 0) close_(id_);
  }
  [[nodiscard]] bool valid() const { return id_ >= 0; }
  operator hid_t() const { return id_; }  // NOLINT: passed to the C interface everywhere
  herr_t close_now() { return close_(std::exchange(id_, -1)); }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

// A damaged file that the library refused can leave it with objects that its exit handler fails to
// close, loudly. All files are closed by their handles, so nothing needs that handler. Takes effect
// only before the library's first call.
inline const bool kNoHdf5ExitHandler = H5dont_atexit() >= 0;

// Keeps HDF5 from printing its error stack while an object of this class lives in the thread.
class QuietHdf5 {
 public:
  QuietHdf5() {
    H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  }
  QuietHdf5(const QuietHdf5&) = delete;
  QuietHdf5& operator=(const QuietHdf5&) = delete;
  ~QuietHdf5() { H5Eset_auto2(H5E_DEFAULT, function_, data_); }

 private:
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

// The innermost message of HDF5's error stack.
inline std::string hdf5_reason() {
  std::string reason;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned level, const H5E_error2_t* error, void* data) -> herr_t {
        if (level == 0 && error->desc != nullptr) *static_cast<std::string*>(data) = error->desc;
        return 0;
      },
      &reason);
  return reason.empty() ? "no reason given" : reason;
}

// For calls of the HDF5 library that have to succeed; `code` is kCorrupt when reading, kInternal when writing.
template <typename Result>
Result hdf5_check(Result result, const char* call, const std::string& path, ErrorCode code) {
  if (result < 0) {
    const char* expected = code == ErrorCode::kCorrupt ? ": expected a whole HDF5 file, found: " : ": ";
    throw Error(code, path + ": " + call + expected + hdf5_reason());
  }
  return result;
}

inline Hdf5Handle open_hdf5(hid_t id, herr_t (*close)(hid_t), const char* call, const std::string& path,
                   ErrorCode code) {
  return {hdf5_check(id, call, path, code), close};
}

}  // namespace onestep
