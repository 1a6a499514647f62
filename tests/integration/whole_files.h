// One whole file or folder of every format that Onestep reads, in a folder of its own, and ways to spoil them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "common/hash.h"
#include "common/sealed_json.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {

class WholeFiles {
 public:
  WholeFiles();

  [[nodiscard]] std::string at(const std::string& name) const { return folder_ / name; }
  [[nodiscard]] std::string read(const std::string& name) const { return slurp(at(name)); }
  void write(const std::string& name, const std::string& content) const { spit(at(name), content); }
  void cut(const std::string& name, double share) const {
    const auto size = static_cast<double>(std::filesystem::file_size(at(name)));
    std::filesystem::resize_file(at(name), static_cast<std::uintmax_t>(share * size));
  }
  void flip(const std::string& name, std::size_t byte) const {
    write(name, with_flipped_bit(read(name), 8 * byte + 2));
  }
  void flip_last(const std::string& name) const { flip(name, read(name).size() - 1); }
  void replace(const std::string& name, const std::string& from, const std::string& to) const {
    std::string content = read(name);
    const std::size_t where = content.find(from);
    if (where == std::string::npos) throw std::runtime_error(name + ": no " + from);
    write(name, content.replace(where, from.size(), to));
  }
  // Changes a sealed manifest and seals it again.
  template <typename Change>
  void reseal(const std::string& name, Change change) const {
    nlohmann::json document = read_sealed_json(at(name));
    change(document);
    write(name, seal_json(document));
  }
  [[nodiscard]] std::map<std::string, std::string> snapshot() const {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_.path())) {
      if (entry.is_regular_file())
        files[entry.path().string()] = sha256(slurp(entry.path().string()));
    }
    return files;
  }

 private:
  void write_tensors() const;
  void write_images() const;
  void write_pairs() const;
  void write_checkpoint() const;
  void write_export() const;
  void write_run() const;
  void write_diffusers() const;

  TempFolder folder_{in_memory_parent()};
};

}  // namespace onestep
