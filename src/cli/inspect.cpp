#include "cli/inspect.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "cli/image_source.h"
#include "cli/inspect_parts.h"
#include "cli/text.h"
#include "cli/verify.h"
#include "common/config.h"
#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/image_decode.h"
#include "common/run_folder.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kIndexEnd = ".safetensors.index.json";

std::string first_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes(16, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<std::size_t>(file.gcount()));
  return bytes;
}

// Eight bytes of a plausible length, then the header's brace.
bool looks_like_safetensors(const std::string& path, const std::string& bytes) {
  return path.ends_with(".safetensors") ||
         (bytes.size() > 8 && bytes[8] == '{' && bytes[7] == 0 && bytes[6] == 0 && bytes[5] == 0);
}

// A JSON object, or null where the file holds something else.
json object_in(const std::string& path) {
  try {
    json document = parse_json(read_file(path), path);
    return document.is_object() ? document : json();
  } catch (const Error&) {
    return {};
  }
}

std::string text_field(const json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

void inspect_json(Inspection& inspection) {
  inspection.format = "JSON";
  collect_problems(inspection, [&] {
    const json document = parse_json(read_file(inspection.path), inspection.path);
    std::string keys;
    if (document.is_object()) {
      for (const auto& [key, value] : document.items()) keys += (keys.empty() ? "" : ", ") + key;
      inspection.facts.emplace_back("keys", keys.substr(0, 400));
    }
  });
  inspection.digest = sha256_file(inspection.path);
}

Inspection inspect_file(const std::string& path) {
  Inspection inspection;
  inspection.path = path;
  const std::uint64_t size = file_size(path);
  inspection.facts.emplace_back("bytes", with_thousands(static_cast<std::int64_t>(size)));
  const std::string bytes = first_bytes(path);
  if (size == 0) {
    inspection.format = "an empty file";
    add_problems(inspection, {path + ": expected content, found 0 bytes"});
  } else if (path.ends_with(kIndexEnd)) {
    inspect_tensors(inspection);
  } else if (inspect_foreign(inspection, bytes)) {
  } else if (looks_like_safetensors(path, bytes)) {
    inspect_tensors(inspection);
  } else if (path.ends_with(".json")) {
    inspect_json(inspection);
  } else {
    inspection.format = "unknown";
    inspection.digest = sha256_file(path);
    add_problems(inspection, {path + ": expected safetensors, HDF5, PNG, JPEG, NumPy, zip, JSON or "
                                     "a pickle, found none of them"});
  }
  return inspection;
}

// The parts that verify_path() reads, with the network that its weights are.
void inspect_own(Inspection& inspection, const char* format) {
  inspection.format = format;
  collect_problems(inspection, [&] {
    const auto parts = verify_path(inspection.path);
    inspection.format = parts.front().type;
    inspection.digest = parts.front().digest;
    for (const VerifiedPart& part : parts) inspection.facts.emplace_back(part.type, part.detail);
  });
  const std::string weights = inspection.path + "/model.safetensors";
  if (file_exists(weights)) inspection.parts.push_back(inspect_file(weights));
}

// Weights of one component: in one file or sharded.
std::vector<std::string> weight_files(const std::string& folder) {
  std::vector<std::string> files, shards;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string path = entry.path().string();
    if (path.ends_with(kIndexEnd)) files.push_back(path);
    if (path.ends_with(".safetensors")) shards.push_back(path);
  }
  if (files.empty()) files = shards;
  std::sort(files.begin(), files.end());
  return files;
}

void inspect_component(Inspection& inspection, const json& config) {
  const std::string class_name = text_field(config, "_class_name");
  inspection.format = "component of a diffusers folder";
  if (!class_name.empty()) inspection.facts.emplace_back("class", class_name);
  if (config.contains("architectures"))
    inspection.facts.emplace_back("architectures", config["architectures"].dump());
  for (const std::string& file : weight_files(inspection.path))
    inspection.parts.push_back(inspect_file(file));
}

// model_index.json names the components: each is a folder.
void inspect_diffusers(Inspection& inspection) {
  inspection.format = "diffusers folder";
  const std::string path = inspection.path + "/model_index.json";
  const json index = object_in(path);
  if (index.is_null())
    return add_problems(inspection, {path + ": expected a JSON object, found another text"});
  inspection.facts.emplace_back("class", text_field(index, "_class_name"));
  inspection.digest = sha256_file(path);
  for (const auto& [name, value] : index.items()) {
    if (!value.is_array() || value.size() != 2 || value[0].is_null()) continue;
    const std::string folder = inspection.path + "/" + name;
    if (!fs::is_directory(folder)) {
      add_problems(inspection,
                   {path + ": /" + name + ": expected a folder " + name + ", found none"});
      continue;
    }
    inspection.parts.push_back(inspect_path(folder));
  }
}

void inspect_folder_of_files(Inspection& inspection) {
  const auto weights = weight_files(inspection.path);
  if (!weights.empty()) {
    inspection.format = "folder of safetensors";
    for (const std::string& file : weights) inspection.parts.push_back(inspect_file(file));
    return;
  }
  const auto source = open_image_source(inspection.path);
  if (!source->images().empty()) {
    inspection.format = "folder of pictures";
    inspection.facts.emplace_back(
        "pictures", with_thousands(static_cast<std::int64_t>(source->images().size())));
    inspection.facts.emplace_back("dataset.json",
                                  source->labels_text() ? "there" : "none: no labels");
    const auto read = source->reader();
    std::vector<std::string> problems;
    for (const SourceImage& image : source->images()) {
      try {
        decode_image(read(image), inspection.path + "/" + image.name);
      } catch (const Error& error) {
        problems.emplace_back(error.what());
      }
    }
    return add_problems(inspection, problems);
  }
  inspection.format = "a folder";
  if (fs::exists(inspection.path + "/config.json"))
    return;  // a scheduler's, a tokenizer's: settings alone
  for (const auto& entry : fs::directory_iterator(inspection.path)) {
    if (entry.is_regular_file() && entry.path().extension() == ".json") return;
  }
  add_problems(inspection,
               {inspection.path +
                ": expected a run, checkpoint, pair set, model, diffusers or picture folder, found "
                "none of them"});
}

Inspection inspect_folder(const std::string& path) {
  Inspection inspection;
  inspection.path = path;
  const json config = object_in(path + "/config.json");
  if (file_exists(job_file(path))) {
    inspect_own(inspection, "run folder");
  } else if (file_exists(path + "/manifest.json")) {
    inspect_own(inspection, "checkpoint or pair set");
  } else if (text_field(config, "format").starts_with("onestep-")) {
    inspect_own(inspection, "model");
  } else if (file_exists(path + "/model_index.json")) {
    inspect_diffusers(inspection);
  } else if (!text_field(config, "_class_name").empty() ||
             (config.is_object() && config.contains("architectures"))) {
    inspect_component(inspection, config);
  } else {
    inspect_folder_of_files(inspection);
  }
  return inspection;
}

// ---- On the screen
// -------------------------------------------------------------------------------

json to_json(const Inspection& inspection) {
  json tensors = json::object(), facts = json::array(), parts = json::array();
  for (const auto& [dtype, count] : inspection.tensors) {
    tensors[dtype] = {
        {"tensors", count.tensors}, {"elements", count.elements}, {"bytes", count.bytes}};
  }
  for (const auto& [name, value] : inspection.facts) facts.push_back({name, value});
  for (const Inspection& part : inspection.parts) parts.push_back(to_json(part));
  return {{"path", inspection.path},
          {"format", inspection.format},
          {"network", inspection.network},
          {"parameters", inspection.parameters},
          {"tensors", tensors},
          {"digest", inspection.digest},
          {"facts", facts},
          {"problems", inspection.problems},
          {"parts", parts}};
}

void print(const Inspection& inspection, const std::string& indent) {
  const auto line = [&](const std::string& name, const std::string& value) {
    std::cout << indent << "  " << name << std::string(name.size() < 14 ? 14 - name.size() : 1, ' ')
              << value << "\n";
  };
  std::cout << indent << inspection.path << ": " << inspection.format << "\n";
  if (!inspection.network.empty()) {
    line("network", inspection.network);
    line("parameters", with_thousands(inspection.parameters));
  }
  for (const auto& [dtype, count] : inspection.tensors) {
    line(dtype, with_thousands(count.tensors) + " tensors, " +
                    with_thousands(static_cast<std::int64_t>(count.elements)) + " elements, " +
                    with_thousands(static_cast<std::int64_t>(count.bytes)) + " bytes");
  }
  for (const auto& [name, value] : inspection.facts) line(name, value);
  if (!inspection.digest.empty()) line("sha256", inspection.digest);
  for (const std::string& problem : inspection.problems) line("wrong", problem);
  for (const Inspection& part : inspection.parts) print(part, indent + "  ");
}

bool has_problems(const Inspection& inspection) {
  return !inspection.problems.empty() ||
         std::any_of(inspection.parts.begin(), inspection.parts.end(), has_problems);
}

}  // namespace

void add_problems(Inspection& inspection, const std::vector<std::string>& problems) {
  std::size_t left_out = 0;
  for (const std::string& problem : problems) {
    if (inspection.problems.size() < kMaxProblems) {
      inspection.problems.push_back(problem);
    } else {
      ++left_out;
    }
  }
  if (left_out > 0) inspection.problems.push_back("and " + std::to_string(left_out) + " more");
}

Inspection inspect_path(const std::string& path) {
  std::string plain = path;
  while (plain.size() > 1 && plain.back() == '/') plain.pop_back();
  if (!fs::exists(plain)) throw Error(ErrorCode::kNotFound, plain + ": no such file or folder");
  return fs::is_directory(plain) ? inspect_folder(plain) : inspect_file(plain);
}

int print_inspection(const std::string& path, bool as_json) {
  const Inspection inspection = inspect_path(path);
  if (as_json) {
    std::cout << to_json(inspection).dump(-1, ' ', true, json::error_handler_t::replace) << "\n";
  } else {
    print(inspection, "");
  }
  return has_problems(inspection) ? exit_status(ErrorCode::kCorrupt) : 0;
}

}  // namespace onestep
