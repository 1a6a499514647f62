#include "cli/dataset_labels.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <map>

#include "common/config.h"
#include "common/error.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxClasses = 65536;
constexpr std::size_t kMaxShown = 100;

std::string shown(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  return text.size() > 80 ? text.substr(0, 80) + "..." : text;
}

// Collects what is wrong; one error names it all.
class Problems {
 public:
  explicit Problems(std::string where) : where_(std::move(where)) {}
  void add(const std::string& problem) { lines_.push_back(problem); }
  void finish() const {
    if (lines_.empty()) return;
    std::string message = where_ + ": " + std::to_string(lines_.size()) +
                          (lines_.size() == 1 ? " problem" : " problems");
    for (std::size_t i = 0; i < std::min(lines_.size(), kMaxShown); ++i)
      message += "\n  " + lines_[i];
    if (lines_.size() > kMaxShown)
      message += "\n  and " + std::to_string(lines_.size() - kMaxShown) + " more";
    throw Error(ErrorCode::kCorrupt, message);
  }

 private:
  std::string where_;
  std::vector<std::string> lines_;
};

// The place of the single 1 among zeros; -1 for anything else.
std::int64_t one_hot_class(const json& list) {
  std::int64_t found = -1;
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (!list[i].is_number()) return -1;
    const double value = list[i].get<double>();
    if (value == 0) continue;
    if (value != 1 || found >= 0) return -1;
    found = static_cast<std::int64_t>(i);
  }
  return found;
}

}  // namespace

DatasetLabels parse_dataset_labels(const std::string& text, const std::string& where,
                                   const std::vector<std::string>& names,
                                   std::int64_t num_classes) {
  json document;
  try {
    document = parse_json(text, where);
  } catch (const Error& error) {
    throw Error(ErrorCode::kCorrupt, error.what());
  }
  if (!document.is_object() || !document.contains("labels")) {
    throw Error(ErrorCode::kCorrupt, where + ": /labels: expected a list or null, found none");
  }
  const json& list = document["labels"];
  if (list.is_null()) return {};
  if (!list.is_array() || list.empty()) {
    throw Error(
        ErrorCode::kCorrupt,
        where + ": /labels: expected a list of [path, class] or null, found " + shown(list));
  }
  Problems problems(where);
  std::map<std::string, std::int64_t> of_name;
  std::int64_t highest = -1, one_hot_length = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string pointer = "/labels/" + std::to_string(i) + ": ";
    const json& entry = list[i];
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string()) {
      problems.add(pointer + "expected [path, class], found " + shown(entry));
      continue;
    }
    std::string name = entry[0].get<std::string>();
    std::replace(name.begin(), name.end(), '\\', '/');
    std::int64_t label = -1;
    if (entry[1].is_array()) {
      label = one_hot_class(entry[1]);
      const auto length = static_cast<std::int64_t>(entry[1].size());
      if (label < 0 || (one_hot_length != 0 && length != one_hot_length)) {
        problems.add(pointer + "expected a one-hot list" +
                     (one_hot_length != 0 ? " of " + std::to_string(one_hot_length) : "") +
                     ", found " + shown(entry[1]));
        continue;
      }
      one_hot_length = length;
    } else if (entry[1].is_number_unsigned() && entry[1].get<std::uint64_t>() < kMaxClasses) {
      label = entry[1].get<std::int64_t>();
    } else {
      problems.add(pointer + "expected a class of 0.." + std::to_string(kMaxClasses - 1) +
                   " or a one-hot list, found " + shown(entry[1]));
      continue;
    }
    highest = std::max(highest, label);
    if (!of_name.emplace(name, label).second)
      problems.add(pointer + "expected one entry for \"" + name + "\", found two");
  }
  DatasetLabels result;
  result.num_classes = num_classes != 0 ? num_classes : std::max(one_hot_length, highest + 1);
  if (one_hot_length > kMaxClasses || highest >= result.num_classes ||
      (one_hot_length != 0 && result.num_classes != one_hot_length)) {
    problems.add("/labels: expected " + std::to_string(result.num_classes) +
                 " classes, found class " + std::to_string(highest) +
                 (one_hot_length != 0 ? " in lists of " + std::to_string(one_hot_length) : ""));
  }
  for (const std::string& name : names) {
    const auto found = of_name.find(name);
    if (found == of_name.end()) {
      problems.add("image \"" + name + "\": expected an entry of /labels, found none");
    } else {
      result.labels.push_back(found->second);
      of_name.erase(found);
    }
  }
  for (const auto& [name, label] : of_name)
    problems.add("/labels: \"" + name + "\": expected an image of that name, found none");
  problems.finish();
  return result;
}

}  // namespace onestep
