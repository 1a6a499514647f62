#include "common/job_spec_schema.h"

#include <string>
#include <utility>
#include <vector>

#include "common/job_spec_fields.h"

namespace onestep {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kNamePattern = "^[A-Za-z][A-Za-z0-9_-]{0,63}$";

// Writes each field's type and range into an object schema.
class Describing {
 public:
  static constexpr bool kReads = true;  // all fields, whatever their values
  explicit Describing(Json& schema) : schema_(schema) {}

  void path(const char* key, std::string&, Presence presence = Presence::kOptional) {
    put(key, {{"type", "string"}});
    if (presence == Presence::kRequired) require(key);
  }
  void paths(const char* key, std::vector<std::string>&) {
    put(key, {{"type", "array"}, {"items", {{"type", "string"}, {"minLength", 1}}}});
  }
  template <class Integer>
  void integer(const char* key, Integer&, std::int64_t min, std::int64_t max) {
    put(key, {{"type", "integer"}, {"minimum", min}, {"maximum", max}});
  }
  void integers(const char* key, std::vector<std::int64_t>&, std::int64_t min, std::int64_t max) {
    put(key, {{"type", "array"}, {"items", {{"type", "integer"}, {"minimum", min}, {"maximum", max}}}});
  }
  void number(const char* key, double&, double min, double max) {
    put(key, {{"type", "number"}, {"minimum", min}, {"maximum", max}});
  }
  void numbers(const char* key, std::vector<double>&, double min, double max) {
    put(key, {{"type", "array"}, {"items", {{"type", "number"}, {"minimum", min}, {"maximum", max}}}});
  }
  void boolean(const char* key, bool&) { put(key, {{"type", "boolean"}}); }
  void text(const char* key, std::string&) { put(key, {{"type", "string"}, {"minLength", 1}}); }
  void texts(const char* key, std::vector<std::string>&) { put(key, {{"type", "array"}, {"items", {{"type", "string"}}}}); }
  void choice(const char* key, std::string&, const std::vector<std::string>& allowed) {
    put(key, {{"type", "string"}, {"enum", allowed}});
  }
  void choices(const char* key, std::vector<std::string>&, const std::vector<std::string>& allowed) {
    put(key, {{"type", "array"}, {"minItems", 1}, {"items", {{"type", "string"}, {"enum", allowed}}}});
  }
  template <class Struct, class... More>
  void object(const char* key, Struct& value, More... more) {
    Json nested = {{"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}};
    Describing describing(nested);
    describe(describing, value, more...);
    describe_alternatives(describing, value, more...);
    put(key, std::move(nested));
  }

  template <class Struct>
  void objects(const char* key, std::vector<Struct>&) {
    Json nested = {{"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}};
    Describing describing(nested);
    Struct value;
    describe(describing, value);
    put(key, {{"type", "array"}, {"items", std::move(nested)}});
  }

 private:
  void put(const char* key, Json field) { schema_["properties"][key] = std::move(field); }
  void require(const char* key) {
    Json& required = schema_["required"];
    for (const Json& known : required) {
      if (known == key) return;
    }
    required.push_back(key);
  }
  // Fields that only another class of network has.
  template <class... More>
  static void describe_alternatives(Describing& describing, NetworkSpec& network, More... more) {
    NetworkSpec other = network;
    other.network_class = network.network_class == "adm_unet" ? "song_unet" : "adm_unet";
    describe(describing, other, more...);
  }
  template <class Struct, class... More>
  static void describe_alternatives(Describing&, Struct&, More...) {}

  Json& schema_;
};

template <std::size_t Index = 0>
JobOptions options_of(std::size_t index) {
  if constexpr (Index + 1 < std::variant_size_v<JobOptions>) {
    if (index != Index) return options_of<Index + 1>(index);
  }
  return JobOptions(std::in_place_index<Index>);
}

Json kind_schema(const std::string& kind, std::size_t index) {
  Json schema = {{"type", "object"},
                 {"properties", {{"name", {{"type", "string"}, {"pattern", kNamePattern}}}, {"kind", {{"const", kind}}}}},
                 {"required", {"name", "kind"}},
                 {"additionalProperties", false}};
  Describing describing(schema);
  JobSpec spec;
  describe(describing, spec);
  JobOptions options = options_of(index);
  std::visit([&](auto& each) { describe(describing, each); }, options);
  return schema;
}

}  // namespace

Json job_spec_schemas(const std::string& prefix) {
  Json schemas, any = Json::array(), any_in_pipeline = Json::array();
  const std::vector<std::string>& kinds = job_kinds();
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    Json schema = kind_schema(kinds[i], i);
    schemas["Job_" + kinds[i]] = schema;
    any.push_back({{"$ref", prefix + "Job_" + kinds[i]}});
    schema["properties"]["after"] = {{"type", "array"}, {"items", {{"type", "string"}, {"pattern", kNamePattern}}}};
    schemas["PipelineJob_" + kinds[i]] = schema;
    any_in_pipeline.push_back({{"$ref", prefix + "PipelineJob_" + kinds[i]}});
  }
  schemas["Job"] = {{"oneOf", any}};
  schemas["PipelineJob"] = {{"oneOf", any_in_pipeline}};
  schemas["Pipeline"] = {
      {"type", "object"},
      {"properties",
       {{"pipeline", {{"type", "string"}, {"pattern", kNamePattern}}},
        {"jobs", {{"type", "array"}, {"minItems", 1}, {"items", {{"$ref", prefix + "PipelineJob"}}}}}}},
      {"required", {"pipeline", "jobs"}},
      {"additionalProperties", false}};
  return schemas;
}

}  // namespace onestep
