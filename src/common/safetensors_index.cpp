#include "common/safetensors_index.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "common/config.h"
#include "common/durable_file.h"
#include "common/error.h"
#include "common/sealed_json.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr const char* kFileEnd = ".safetensors";
constexpr std::size_t kMaxProblemsShown = 20;  // problems listed by name

std::string shown_json(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  return text.size() > 80 ? text.substr(0, 80) + "..." : text;
}

bool by_name(const TensorView& a, const TensorView& b) { return a.name < b.name; }

// What index and shards disagree about, a line each.
std::vector<std::string> disagreements(
    const std::map<std::string, std::string>& weight_map,
    const std::map<std::string, const SafetensorsFile*>& shards) {
  std::vector<std::string> problems;
  for (const auto& [name, file] : weight_map) {
    if (shards.at(file)->find(name) == nullptr) {
      problems.push_back("tensor \"" + name + "\": expected in " + file + ", found none there");
    }
  }
  for (const auto& [file, shard] : shards) {
    for (const TensorView& tensor : shard->tensors()) {
      const auto listed = weight_map.find(tensor.name);
      if (listed == weight_map.end()) {
        problems.push_back("tensor \"" + tensor.name + "\" in " + file +
                           ": expected an entry of weight_map, found none");
      } else if (listed->second != file) {
        problems.push_back("tensor \"" + tensor.name + "\": expected in " + listed->second +
                           " alone, found in " + file + " too");
      }
    }
  }
  return problems;
}

}  // namespace

std::map<std::string, std::string> read_weight_map(const std::string& index_path) {
  const auto fail = [&](const std::string& what) -> void {
    throw Error(ErrorCode::kCorrupt, index_path + ": " + what);
  };
  json document;
  try {
    document = parse_json(read_file(index_path), index_path);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kConfig) throw;
    throw Error(ErrorCode::kCorrupt, error.what());
  }
  if (!document.is_object() || !document.contains("weight_map")) {
    fail("expected an object with a weight_map, found " + shown_json(document));
  }
  for (const auto& [key, value] : document.items()) {
    if (key != "weight_map" && key != "metadata") {
      fail("/" + key + ": expected weight_map and metadata alone, found " + shown_json(value));
    }
  }
  const json& list = document["weight_map"];
  if (!list.is_object() || list.empty())
    fail("/weight_map: expected tensors and their files, found " + shown_json(list));
  std::map<std::string, std::string> weight_map;
  for (const auto& [name, file] : list.items()) {
    const std::string text = file.is_string() ? file.get<std::string>() : "";
    if (!is_plain_file_name(text) || !text.ends_with(kFileEnd)) {
      fail("/weight_map/" + name +
           ": expected the name of a .safetensors file in this folder, found " + shown_json(file));
    }
    weight_map[name] = text;
  }
  return weight_map;
}

TensorFiles::TensorFiles(const std::string& path) : path_(path), sharded_(path.ends_with(".json")) {
  if (!sharded_) {
    files_.emplace_back(path);
    tensors_ = files_.front().tensors();
    return;
  }
  const auto weight_map = read_weight_map(path);
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::set<std::string> names;
  for (const auto& [tensor, file] : weight_map) names.insert(file);
  files_.reserve(names.size());
  std::map<std::string, const SafetensorsFile*> shards;
  for (const std::string& name : names) {
    files_.emplace_back((folder / name).string());
    shards[name] = &files_.back();
  }
  if (const auto problems = disagreements(weight_map, shards); !problems.empty()) {
    std::string message =
        path + ": " + std::to_string(problems.size()) + " tensors differ between index and shards";
    for (std::size_t i = 0; i < std::min(problems.size(), kMaxProblemsShown); ++i)
      message += "\n  " + problems[i];
    if (problems.size() > kMaxProblemsShown)
      message += "\n  and " + std::to_string(problems.size() - kMaxProblemsShown) + " more";
    throw Error(ErrorCode::kMismatch, message);
  }
  for (const SafetensorsFile& file : files_) {
    tensors_.insert(tensors_.end(), file.tensors().begin(), file.tensors().end());
  }
  std::sort(tensors_.begin(), tensors_.end(), by_name);
}

const TensorView* TensorFiles::find(const std::string& name) const {
  const auto found = std::lower_bound(
      tensors_.begin(), tensors_.end(), name,
      [](const TensorView& tensor, const std::string& key) { return tensor.name < key; });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

const TensorView& TensorFiles::at(const std::string& name) const {
  if (const TensorView* tensor = find(name)) return *tensor;
  throw Error(ErrorCode::kCorrupt, path_ + ": expected a tensor \"" + name +
                                       "\", found none among " + std::to_string(tensors_.size()));
}

void TensorFiles::release(const TensorView& tensor) const {
  for (const SafetensorsFile& file : files_) {
    const TensorView* own = file.find(tensor.name);
    if (own != nullptr) file.release(*own);
  }
}

}  // namespace onestep
