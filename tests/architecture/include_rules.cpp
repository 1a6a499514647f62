#include "architecture/include_rules.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>

namespace onestep {
namespace {

namespace fs = std::filesystem;

struct Include {
  std::string target;    // as written, without quotes or brackets
  bool project = false;  // in quotes
};

std::vector<Include> includes_of(const std::string& content) {
  static const std::regex kInclude(R"(^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"])");
  std::vector<Include> includes;
  std::istringstream lines(content);
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (std::regex_search(line, match, kInclude)) includes.push_back({match[2], match[1] == "\""});
  }
  return includes;
}

std::string folder_of(const std::string& path) {
  const std::string folder = fs::path(path).parent_path().string();
  return folder;
}

// Folder -> folders that it may include, itself apart. Those in the middle of the worker do not see each other.
const std::map<std::string, std::set<std::string>>& folder_rules() {
  static const std::set<std::string> kBelowMiddle = {"worker/diffusion", "worker/tensors", "common"};
  static const std::set<std::string> kBelowRun = {
      "worker/dmd",  "worker/sampling", "worker/models",    "worker/optim",   "worker/data",
      "worker/metrics", "worker/comm",  "worker/diffusion", "worker/tensors", "common"};
  static const std::map<std::string, std::set<std::string>> kRules = [] {
    std::map<std::string, std::set<std::string>> rules = {
        {"common", {}},
        {"cli", {"common"}},
        {"coordinator", {"coordinator/launcher", "common"}},
        {"coordinator/launcher", {"common"}},
        {"worker/tensors", {"common"}},
        {"worker/diffusion", {"worker/tensors", "common"}},
        {"worker/run", kBelowRun}};
    for (const char* middle : {"dmd", "sampling", "models", "optim", "data", "metrics", "comm"}) {
      rules[std::string("worker/") + middle] = kBelowMiddle;
    }
    rules["worker"] = kBelowRun;  // main.cpp
    rules["worker"].insert("worker/run");
    return rules;
  }();
  return kRules;
}

// Includes that start with `prefix` are for the files whose path matches `allowed`.
struct HeavyHeader {
  const char* prefix;
  std::regex allowed;
};

const std::vector<HeavyHeader>& heavy_headers() {
  static const char* kTorchFiles =
      "worker/(main\\.cpp|(tensors|diffusion|dmd|sampling|models|optim|data|metrics)/.*|"
      "run/(?!telemetry_client|checkpointer).*)";
  static const char* kAsioFiles =
      "coordinator/((main|http_server|telemetry_listener)\\.cpp|stream_response\\.h)|coordinator/launcher/.*\\.cpp|"
      "worker/run/telemetry_client\\.cpp|cli/client\\.cpp";
  static const char* kHdf5Files =
      "common/(hdf5_handle\\.h|hdf5_guard\\.cpp|hdf5_listing\\.cpp|image_file\\.cpp|embedding_file\\.cpp|pair_shard_\\w+\\.(h|cpp))|worker/data/latent_dataset\\.cpp";
  static const std::vector<HeavyHeader> kHeaders = {
      {"worker/tensors/torch.h", std::regex(kTorchFiles)},
      {"torch/", std::regex("worker/tensors/(torch|recompute|fused_norm|frozen_convolution|unet_ops|image_ops)\\.(h|cpp)")},
      {"ATen/", std::regex(kTorchFiles)},
      {"c10/", std::regex(kTorchFiles)},
      {"mpi.h", std::regex("worker/(main\\.cpp|comm/mpi_.*\\.cpp)")},
      {"nccl.h", std::regex("worker/comm/nccl_.*")},
      {"hdf5", std::regex(kHdf5Files)},
      {"H5", std::regex(kHdf5Files)},
      {"common/hdf5_handle.h", std::regex(kHdf5Files)},
      {"common/pair_shard_layout.h", std::regex("common/pair_shard_\\w+\\.cpp")},
      {"sqlite3", std::regex("coordinator/(store(_\\w+)?\\.cpp|store_database\\.h|sqlite\\.h)")},
      {"coordinator/sqlite.h", std::regex("coordinator/store_database\\.h")},
      {"coordinator/store_database.h", std::regex("coordinator/store(_\\w+)?\\.cpp")},
      {"boost/", std::regex(kAsioFiles)},
      {"CLI/", std::regex("(cli|coordinator|worker)/main\\.cpp|coordinator/data_tools\\.cpp|cli/manual\\.(h|cpp)")},
      {"prometheus/", std::regex("coordinator/service_metrics\\.cpp")},
      {"openssl/", std::regex("common/(hash|secret|private_ca)\\.cpp")},
      {"xxhash", std::regex("common/hash\\.cpp")},
      {"unicode/", std::regex("worker/models/bpe_tokenizer\\.cpp")},
      {"png.h", std::regex("worker/metrics/.*\\.cpp|common/image_decode\\.cpp")},
      {"jpeglib.h", std::regex("common/image_decode\\.cpp")},
      {"zip.h", std::regex("common/zip_archive\\.cpp")},
      {"zlib.h", std::regex("common/npz_file\\.cpp")},
      {"cuda", std::regex(".*\\.cu|worker/tensors/.*cuda.*|worker/comm/nccl_.*")},
      {"gtest/", std::regex("(?!)")},
      {"gmock/", std::regex("(?!)")}};
  return kHeaders;
}

void check_folder(const std::string& path, const Include& include, std::vector<std::string>& broken) {
  if (!include.project) return;
  const std::string from = folder_of(path), to = folder_of(include.target);
  const auto rule = folder_rules().find(from);
  if (rule == folder_rules().end()) {
    broken.push_back(path + ": the folder " + from + " is not one of the house");
  } else if (to != from && !rule->second.contains(to)) {
    broken.push_back(path + " includes \"" + include.target + "\": " + from + " may not see " +
                     (to.empty() ? "files outside the house" : to));
  }
}

void check_heavy(const std::string& path, const Include& include, std::vector<std::string>& broken) {
  for (const HeavyHeader& header : heavy_headers()) {
    if (include.target.starts_with(header.prefix) && !std::regex_match(path, header.allowed)) {
      broken.push_back(path + " includes " + include.target + ": this heavy header belongs to other files");
    }
  }
}

// Depth-first over project includes; a header on the current path again is a cycle.
void find_cycles(const SourceTree& tree, const std::string& path, std::vector<std::string>& trail,
                 std::set<std::string>& finished, std::vector<std::string>& broken) {
  if (finished.contains(path)) return;
  for (std::size_t i = 0; i < trail.size(); ++i) {
    if (trail[i] != path) continue;
    std::string cycle;
    for (; i < trail.size(); ++i) cycle += trail[i] + " -> ";
    broken.push_back("includes go in a circle: " + cycle + path);
    return;
  }
  const auto file = tree.find(path);
  if (file == tree.end()) return;
  trail.push_back(path);
  for (const Include& include : includes_of(file->second)) {
    if (include.project) find_cycles(tree, include.target, trail, finished, broken);
  }
  trail.pop_back();
  finished.insert(path);
}

}  // namespace

SourceTree read_source_tree(const std::string& folder) {
  SourceTree tree;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string extension = entry.path().extension().string();
    if (!entry.is_regular_file() || (extension != ".h" && extension != ".cpp" && extension != ".cu")) continue;
    std::ifstream file(entry.path(), std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + entry.path().string());
    tree[fs::relative(entry.path(), folder).string()] = {std::istreambuf_iterator<char>(file),
                                                         std::istreambuf_iterator<char>()};
  }
  return tree;
}

std::vector<std::string> broken_include_rules(const SourceTree& tree) {
  std::vector<std::string> broken;
  std::set<std::string> finished;
  for (const auto& [path, content] : tree) {
    for (const Include& include : includes_of(content)) {
      check_folder(path, include, broken);
      check_heavy(path, include, broken);
    }
    if (path.ends_with(".h") && content.find("#pragma once") == std::string::npos) {
      broken.push_back(path + ": expected #pragma once, found none");
    }
    std::vector<std::string> trail;
    find_cycles(tree, path, trail, finished, broken);
  }
  return broken;
}

}  // namespace onestep
