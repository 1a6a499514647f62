#include "common/hdf5_guard.h"

#include <hdf5.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstring>
#include <mutex>
#include <set>
#include <tuple>

#include "common/error.h"
#include "common/hdf5_handle.h"
#include "common/locked_child.h"

namespace onestep {
namespace {

constexpr int kMaxObjects = 100'000;

// ---- In the child (locked_child.h). ----

struct Findings {
  char text[200] = "";
  int num_objects = 0;
};

herr_t refuse(Findings& findings, const char* name, const char* what) {
  std::snprintf(findings.text, sizeof findings.text, "\"%.80s\" is %s", name, what);
  return 1;  // no further
}

herr_t look_at_link(hid_t, const char* name, const H5L_info_t* info, void* data) {
  auto& findings = *static_cast<Findings*>(data);
  if (info->type == H5L_TYPE_EXTERNAL) return refuse(findings, name, "a link to another file");
  if (info->type == H5L_TYPE_SOFT) return refuse(findings, name, "a soft link");
  if (info->type != H5L_TYPE_HARD) return refuse(findings, name, "a link of an unknown kind");
  if (++findings.num_objects > kMaxObjects) return refuse(findings, name, "one of more than 100,000 links");
  return 0;
}

herr_t look_at_object(hid_t root, const char* name, const H5O_info_t* info, void* data) {
  auto& findings = *static_cast<Findings*>(data);
  if (++findings.num_objects > 2 * kMaxObjects) return refuse(findings, name, "one of more than 100,000 objects");
  if (info->type != H5O_TYPE_DATASET) return 0;
  const hid_t dataset = H5Dopen2(root, name, H5P_DEFAULT);
  if (dataset < 0) return 0;  // the reader will say so
  const hid_t creation = H5Dget_create_plist(dataset);
  herr_t verdict = 0;
  if (creation >= 0) {
    const H5D_layout_t layout = H5Pget_layout(creation);
    if (layout == H5D_VIRTUAL) verdict = refuse(findings, name, "a virtual dataset, whose data is in other files");
    if (verdict == 0 && layout == H5D_CONTIGUOUS && H5Pget_external_count(creation) != 0) {
      verdict = refuse(findings, name, "a dataset whose data is in other files");
    }
    const int num_filters = H5Pget_nfilters(creation);
    for (int i = 0; verdict == 0 && i < num_filters; ++i) {
      unsigned flags = 0;
      std::size_t num_values = 0;
      const H5Z_filter_t filter =
          H5Pget_filter2(creation, static_cast<unsigned>(i), &flags, &num_values, nullptr, 0, nullptr, nullptr);
      if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_FLETCHER32) {
        verdict = refuse(findings, name, "a dataset with a filter other than deflate, shuffle and fletcher32");
      }
    }
    H5Pclose(creation);
  }
  H5Dclose(dataset);
  return verdict;
}

std::string look_at(const char* path, const LockedChildLimits& limits) {
  const QuietHdf5 quiet;
  H5PLset_loading_state(0);
  Findings findings;
  const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
  if (file < 0) return "";  // the reader says so
  forbid_opening();
  herr_t verdict = H5Lvisit(file, H5_INDEX_NAME, H5_ITER_NATIVE, look_at_link, &findings);
  if (verdict == 0) verdict = H5Ovisit(file, H5_INDEX_NAME, H5_ITER_NATIVE, look_at_object, &findings);
  // Damaged, or in need of more memory than there is: the reader, which has no such limits, must not try.
  if (verdict < 0) return "the HDF5 library can't look through it within " + std::to_string(limits.memory_bytes >> 20) + " MiB";
  return findings.text;
}

// ---- In the process that wants to know. ----

std::string verdict_on(const std::string& path, const LockedChildLimits& limits) {
  const LockedChildEnd end = look_in_locked_child(path, limits, [&] { return look_at(path.c_str(), limits); });
  switch (end.how) {
    case LockedChildEnd::How::kReported: return end.report;
    case LockedChildEnd::How::kBusy: return "it keeps the HDF5 library busy for more than " + std::to_string(limits.time_s) + " s";
    case LockedChildEnd::How::kDied: break;
  }
  return std::string("the HDF5 library dies of it (") + ::strsignal(end.signal) + ")";
}

}  // namespace

void check_hdf5_in_child(const std::string& path, const LockedChildLimits& limits) {
  using Identity = std::tuple<dev_t, ino_t, off_t, time_t, long>;
  static std::mutex mutex;
  static std::set<Identity> passed;
  H5PLset_loading_state(0);
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return;  // the reader says so
  const Identity identity{status.st_dev, status.st_ino, status.st_size, status.st_ctim.tv_sec, status.st_ctim.tv_nsec};
  // One at a time: a child that is made while another thread is inside the HDF5 library inherits a half-changed one.
  const std::scoped_lock lock(mutex);
  if (passed.contains(identity)) return;
  const std::string found = verdict_on(path, limits);
  if (!found.empty()) {
    throw Error(ErrorCode::kCorrupt, path + ": expected an HDF5 file with its own data alone, found that " + found);
  }
  passed.insert(identity);
}

}  // namespace onestep
