#include "common/hdf5_listing.h"

#include <hdf5.h>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/hdf5_guard.h"
#include "common/hdf5_handle.h"

namespace onestep {
namespace {

constexpr std::int64_t kMaxCounted = 10'000'000;
constexpr std::size_t kMaxText = 4096;

std::string type_text(hid_t type) {
  const std::string bits = std::to_string(8 * H5Tget_size(type));
  switch (H5Tget_class(type)) {
    case H5T_INTEGER:
      return (H5Tget_sign(type) == H5T_SGN_NONE ? "uint" : "int") + bits;
    case H5T_FLOAT:
      return "float" + bits;
    case H5T_STRING:
      return "text";
    default:
      return "another type of " + bits + " bits";
  }
}

std::string format_of(hid_t file) {
  if (H5Aexists(file, "format") <= 0) return "";
  const Hdf5Handle attribute(H5Aopen(file, "format", H5P_DEFAULT), H5Aclose);
  if (!attribute.valid()) return "";
  const Hdf5Handle type(H5Aget_type(attribute), H5Tclose);
  const Hdf5Handle space(H5Aget_space(attribute), H5Sclose);
  if (H5Tget_class(type) != H5T_STRING || H5Sget_simple_extent_npoints(space) != 1) return "";
  const Hdf5Handle memory(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_cset(memory, H5Tget_cset(type));
  if (H5Tis_variable_str(type) > 0) {
    char* characters = nullptr;
    H5Tset_size(memory, H5T_VARIABLE);
    if (H5Aread(attribute, memory, &characters) < 0 || characters == nullptr) return "";
    std::string text = characters;
    H5free_memory(characters);
    return text;
  }
  const std::size_t size = H5Tget_size(type);
  if (size > kMaxText) return "";
  std::string text(size + 1, '\0');
  H5Tset_size(memory, size + 1);
  if (H5Aread(attribute, memory, text.data()) < 0) return "";
  return text.c_str();
}

struct Visit {
  Hdf5Listing* listing;
  std::size_t max_datasets;
};

herr_t visit_object(hid_t root, const char* name, const H5O_info_t* info, void* data) {
  auto& visit = *static_cast<Visit*>(data);
  if (info->type != H5O_TYPE_DATASET) return 0;
  if (++visit.listing->num_datasets >= kMaxCounted) return 1;
  if (visit.listing->datasets.size() >= visit.max_datasets) return 0;
  const Hdf5Handle dataset(H5Dopen2(root, name, H5P_DEFAULT), H5Dclose);
  if (!dataset.valid()) return -1;
  const Hdf5Handle type(H5Dget_type(dataset), H5Tclose);
  const Hdf5Handle space(H5Dget_space(dataset), H5Sclose);
  const int rank = H5Sget_simple_extent_ndims(space);
  if (rank < 0) return -1;
  std::vector<hsize_t> shape(static_cast<std::size_t>(rank));
  H5Sget_simple_extent_dims(space, shape.data(), nullptr);
  visit.listing->datasets.push_back({name, type_text(type), {shape.begin(), shape.end()}});
  return 0;
}

}  // namespace

Hdf5Listing list_hdf5(const std::string& path, std::size_t max_datasets) {
  static_cast<void>(file_size(path));  // kNotFound, and nothing but a regular file
  check_hdf5_in_child(path);
  const QuietHdf5 quiet;
  const Hdf5Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (!file.valid()) {
    throw Error(ErrorCode::kCorrupt,
                path +
                    ": expected a whole HDF5 file, found one that HDF5 cannot open (truncated, "
                    "damaged or another format): " +
                    hdf5_reason());
  }
  Hdf5Listing listing;
  listing.format = format_of(file);
  Visit visit{&listing, max_datasets};
  if (H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_NATIVE, visit_object, &visit, H5O_INFO_BASIC) < 0) {
    throw Error(ErrorCode::kCorrupt,
                path + ": expected objects that can be listed, found damage: " + hdf5_reason());
  }
  return listing;
}

}  // namespace onestep
