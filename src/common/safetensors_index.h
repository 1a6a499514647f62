// Tensors by name out of one safetensors file or out of the shards that an index lists.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "common/safetensors_file.h"

namespace onestep {

// The mapped files of one network. Views live as long as the object. Move-only.
class TensorFiles {
 public:
  // `path`: a .safetensors file, or an index (*.safetensors.index.json: {"weight_map": {tensor:
  // file}, "metadata": {...}}) whose shards lie beside it. Every shard passes the checks of
  // SafetensorsFile, holds exactly the tensors that the index places in it, and has a plain name:
  // no path leaves the folder. All tensors that are missing or not listed are named at once.
  // Errors: kNotFound; kCorrupt naming file, key, expected, found; kMismatch when index and shards
  // disagree.
  explicit TensorFiles(const std::string& path);

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] bool is_sharded() const { return sharded_; }
  [[nodiscard]] const std::vector<SafetensorsFile>& files() const { return files_; }  // by name
  [[nodiscard]] const std::vector<TensorView>& tensors() const {
    return tensors_;
  }  // of all files, sorted by name
  [[nodiscard]] const TensorView* find(const std::string& name) const;
  // Errors: kCorrupt when absent.
  [[nodiscard]] const TensorView& at(const std::string& name) const;
  // As SafetensorsFile::release().
  void release(const TensorView& tensor) const;

 private:
  std::string path_;
  bool sharded_ = false;
  std::vector<SafetensorsFile> files_;
  std::vector<TensorView> tensors_;
};

// tensor -> file name, checked as above but for the shards themselves. Errors: kNotFound, kCorrupt.
std::map<std::string, std::string> read_weight_map(const std::string& index_path);

}  // namespace onestep
