#include "worker/run/clip_tokenizer_files.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "common/config.h"
#include "common/durable_file.h"
#include "common/error.h"
#include "worker/models/diffusers_config.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr const char* kVocabulary = "/vocab.json";
constexpr const char* kMerges = "/merges.txt";
constexpr const char* kConfig = "/tokenizer_config.json";
constexpr const char* kSpecials = "/special_tokens_map.json";

const std::vector<FixedKey> kFixedKeys = {
    {"tokenizer_class", R"(["CLIPTokenizer", "CLIPTokenizerFast"])"},
    {"add_prefix_space", "[false]"},
    {"do_lower_case", "[true]"},
    {"additional_special_tokens", "[[], null]"},
    {"extra_special_tokens", "[{}, [], null]"},
    {"padding_side", R"(["right"])"},
    {"truncation_side", R"(["right"])"},
};
// What concerns decoding, saving or other programs.
const std::vector<const char*> kHarmlessKeys = {"errors",       "name_or_path", "special_tokens_map_file", "clean_up_tokenization_spaces",
                                                "backend",      "is_local",     "model_input_names",       "split_special_tokens",
                                                "processor_class"};

struct SpecialToken {
  std::string content;
  std::optional<bool> normalized = {};  // nothing said: as false, but another token to the reference
  bool operator==(const SpecialToken&) const = default;
};

// "text", or {"content": "text", "normalized": true, ...}.
void read_token(ConfigReader& reader, const json& document, const char* key, SpecialToken& token) {
  reader.know(key);
  if (!document.contains(key)) return;
  const json& value = document[key];
  if (value.is_string()) {
    token = {value.get<std::string>(), std::nullopt};
    return;
  }
  ConfigReader nested = reader.object(key);
  token.content = nested.required_text("content");
  token.normalized = nested.boolean("normalized", false);
  check_fixed_keys(nested, value, {{"lstrip", "[false]"}, {"rstrip", "[false]"}, {"single_word", "[false]"}, {"special", "[true, false]"}});
  if (value.is_object()) know_harmless_keys(nested, value, {});  // __type
  reader.absorb(nested);
}

struct Specials {
  SpecialToken begin{"<|startoftext|>"}, end{"<|endoftext|>"}, unknown{"<|endoftext|>"}, pad{"<|endoftext|>"};

  // The reference adds the four in this order, each spelling once; the last of one name says how that name is looked for.
  [[nodiscard]] bool normalized(const std::string& content) const {
    std::vector<SpecialToken> added;
    for (const SpecialToken& token : {begin, end, unknown, pad}) {
      if (token.content == content && std::find(added.begin(), added.end(), token) == added.end()) added.push_back(token);
    }
    return added.back().normalized.value_or(false);
  }
};

void read_specials(ConfigReader& reader, const json& document, Specials& specials) {
  read_token(reader, document, "bos_token", specials.begin);
  read_token(reader, document, "eos_token", specials.end);
  read_token(reader, document, "unk_token", specials.unknown);
  read_token(reader, document, "pad_token", specials.pad);
}

std::unordered_map<std::string, std::int32_t> read_vocabulary(const std::string& path) {
  const json document = read_json_file(path);
  const auto refuse = [&](const std::string& what) { throw Error(ErrorCode::kCorrupt, path + ": " + what); };
  if (!document.is_object()) refuse("expected an object of token to id, found another value");
  std::unordered_map<std::string, std::int32_t> vocabulary;
  std::set<std::int64_t> ids;
  for (const auto& [token, id] : document.items()) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= (std::uint64_t{1} << 31)) {
      refuse("token \"" + token + "\": expected an id in 0..2^31-1, found " + id.dump());
    }
    if (!ids.insert(id.get<std::int64_t>()).second) {
      refuse("token \"" + token + "\": expected an id of its own, found " + id.dump() + " twice");
    }
    vocabulary[token] = id.get<std::int32_t>();
  }
  return vocabulary;
}

// added_tokens_decoder: id -> token. Its ids must be the vocabulary's; its tokens say how they are looked for.
std::map<std::string, bool> read_added_tokens(ConfigReader& reader, const json& document,
                                              const std::unordered_map<std::string, std::int32_t>& vocabulary) {
  std::map<std::string, bool> normalized;
  ConfigReader decoder = reader.object("added_tokens_decoder");
  for (const auto& [id, value] : document["added_tokens_decoder"].items()) {
    SpecialToken token;
    read_token(decoder, document["added_tokens_decoder"], id.c_str(), token);
    const auto found = vocabulary.find(token.content);
    if (found == vocabulary.end() || std::to_string(found->second) != id) {
      decoder.violation(id, "expected a token of the vocabulary with this id, found " + json(token.content).dump());
    }
    normalized[token.content] = token.normalized.value_or(false);
  }
  reader.absorb(decoder);
  return normalized;
}

}  // namespace

std::unique_ptr<BpeTokenizer> load_clip_tokenizer(const std::string& folder) {
  const std::string where = folder + kConfig;
  const json config = read_json_file(where);
  auto vocabulary = read_vocabulary(folder + kVocabulary);
  ConfigReader reader(config, "");
  Specials specials;
  std::map<std::string, bool> added;
  BpeTokenizerOptions options;
  options.max_length = reader.required_integer("model_max_length", 2, 1 << 20);
  if (config.is_object()) {
    check_fixed_keys(reader, config, kFixedKeys);
    know_harmless_keys(reader, config, kHarmlessKeys);
    read_specials(reader, config, specials);
    if (config.contains("added_tokens_decoder")) {  // a file this new is the whole truth
      added = read_added_tokens(reader, config, vocabulary);
    } else if (file_exists(folder + kSpecials)) {  // goes before tokenizer_config.json
      const json map = read_json_file(folder + kSpecials);
      ConfigReader special_reader(map, "");
      if (map.is_object()) read_specials(special_reader, map, specials);
      special_reader.finish(folder + kSpecials);
    }
  }
  reader.finish(where);
  const auto normalized = [&](const std::string& content) {
    const auto found = added.find(content);
    return found == added.end() ? specials.normalized(content) : found->second;
  };
  options.begin_token = specials.begin.content;
  options.begin_normalized = normalized(options.begin_token);
  options.end_token = specials.end.content;
  options.end_normalized = normalized(options.end_token);
  options.pad_token = specials.pad.content;
  const std::string merges_path = folder + kMerges;
  BpeMerges merges(std::move(vocabulary), merges_of_text(read_file(merges_path)), merges_path);
  return std::make_unique<BpeTokenizer>(std::move(merges), options, folder);
}

std::map<std::string, std::string> clip_tokenizer_files(const BpeTokenizer& tokenizer) {
  const BpeTokenizerOptions& options = tokenizer.options();
  const auto token = [](const std::string& content, bool normalized) -> json {
    if (!normalized) return content;
    return {{"__type", "AddedToken"}, {"content", content}, {"lstrip", false}, {"normalized", true}, {"rstrip", false}, {"single_word", false}};
  };
  const json specials = {{"bos_token", token(options.begin_token, options.begin_normalized)},
                         {"eos_token", token(options.end_token, options.end_normalized)},
                         {"pad_token", token(options.pad_token, options.pad_token == options.end_token && options.end_normalized)},
                         {"unk_token", token(options.end_token, options.end_normalized)}};
  json config = specials;
  config["add_prefix_space"] = false;
  config["do_lower_case"] = true;
  config["errors"] = "replace";
  config["model_max_length"] = options.max_length;
  config["tokenizer_class"] = "CLIPTokenizer";

  std::map<std::int32_t, std::string> by_id;
  for (const auto& [text, id] : tokenizer.merges().vocabulary()) by_id[id] = text;
  std::string vocabulary, merges = "#version: 0.2\n";
  for (const auto& [id, text] : by_id) {
    vocabulary += (vocabulary.empty() ? "{" : ", ") + json(text).dump() + ": " + std::to_string(id);
  }
  for (const std::string& merge : tokenizer.merges().list()) merges += merge + "\n";
  return {{"vocab.json", vocabulary + "}\n"},
          {"merges.txt", merges},
          {"tokenizer_config.json", config.dump(2) + "\n"},
          {"special_tokens_map.json", specials.dump(2) + "\n"}};
}

}  // namespace onestep
