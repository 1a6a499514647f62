#include "common/pipeline.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "common/error.h"

namespace onestep {
namespace {

using nlohmann::json;

std::string joined(const std::vector<std::string>& words, const std::string& separator = ", ") {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : separator) + word;
  return text;
}

std::vector<std::string> names_of(const std::vector<PipelineJob>& jobs) {
  std::vector<std::string> names;
  for (const PipelineJob& job : jobs) names.push_back(job.spec.name);
  return names;
}

void add_once(std::vector<std::string>& names, const std::string& name) {
  if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
}

// One entry of "jobs": its spec without "after", then everything that it comes after.
PipelineJob parse_job(const json& entry, const std::string& base, const std::string& pointer,
                      std::vector<Violation>& violations) {
  PipelineJob job;
  json spec = entry;
  if (spec.is_object()) {
    ConfigReader after(spec, pointer);
    job.after = after.texts("after", {});
    violations.insert(violations.end(), after.violations().begin(), after.violations().end());
    spec.erase("after");
  }
  ParsedJobSpec parsed = check_job_spec(spec, base, pointer);
  violations.insert(violations.end(), parsed.violations.begin(), parsed.violations.end());
  job.spec = std::move(parsed.spec);
  std::vector<std::string> after;
  for (const std::string& name : job.after) add_once(after, name);
  for (const std::string& name : references(job.spec)) add_once(after, name);
  job.after = std::move(after);
  return job;
}

// Where the job at `pointer` names another one: the field of an "@name", else its list of jobs to come after.
std::string pointer_of_name(const PipelineJob& job, const std::string& pointer, const std::string& name) {
  for (const ReferenceUse& use : reference_uses(job.spec)) {
    if (use.name == name) return pointer + use.pointer;
  }
  return pointer + "/after";
}

void check_names(const std::vector<PipelineJob>& jobs, const std::vector<std::string>& pointers,
                 std::vector<Violation>& violations) {
  const std::vector<std::string> names = names_of(jobs);
  std::set<std::string> seen;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    if (!names[i].empty() && !seen.insert(names[i]).second) {
      violations.push_back(
          {pointers[i] + "/name", "expected a name of its own, found '" + names[i] + "' twice"});
    }
    for (const std::string& name : jobs[i].after) {
      if (name == names[i]) {
        violations.push_back(
            {pointer_of_name(jobs[i], pointers[i], name), "expected to come after other jobs, found '" + name + "' itself"});
      } else if (std::find(names.begin(), names.end(), name) == names.end()) {
        violations.push_back({pointer_of_name(jobs[i], pointers[i], name),
                              "expected a job of this pipeline (" + joined(names) + "), found '" + name + "'"});
      }
    }
  }
}

// "@name" must stand for a job whose output can be read there; two jobs can't write one folder.
void check_folders(const std::vector<PipelineJob>& jobs, const std::vector<std::string>& pointers,
                   std::vector<Violation>& violations) {
  std::map<std::string, std::string> kind_of, writer_of;
  for (const PipelineJob& job : jobs) kind_of[job.spec.name] = job.spec.kind;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    for (const ReferenceUse& use : reference_uses(jobs[i].spec)) {
      const auto found = kind_of.find(use.name);
      if (found == kind_of.end() || found->second.empty()) continue;  // reported elsewhere
      if (std::find(use.kinds.begin(), use.kinds.end(), found->second) != use.kinds.end()) continue;
      violations.push_back({pointers[i] + use.pointer,
                            (use.kinds.empty() ? "expected a path, which no job writes"
                                               : "expected a job of kind " + joined(use.kinds, " or ")) +
                                ", found @" + use.name + ", which is of kind " + found->second});
    }
    const std::string& output = jobs[i].spec.output;
    if (output.empty()) continue;
    const auto [other, is_new] = writer_of.try_emplace(output, jobs[i].spec.name);
    if (is_new) continue;
    violations.push_back({pointers[i] + "/output", "expected a folder of its own, found " + output +
                                                       ", which job '" + other->second + "' writes"});
  }
}

// The file's order, except where a job must wait for one that is written below it.
std::vector<PipelineJob> sorted(std::vector<PipelineJob> jobs, std::vector<Violation>& violations) {
  std::vector<PipelineJob> order;
  std::set<std::string> placed;
  while (!jobs.empty()) {
    const auto ready = std::find_if(jobs.begin(), jobs.end(), [&placed](const PipelineJob& job) {
      return std::all_of(job.after.begin(), job.after.end(),
                         [&placed](const std::string& name) { return placed.contains(name); });
    });
    if (ready == jobs.end()) {
      violations.push_back(
          {"/jobs", "expected an order in which to run the jobs, found a circle in or before " +
                        joined(names_of(jobs))});
      return order;
    }
    placed.insert(ready->spec.name);
    order.push_back(std::move(*ready));
    jobs.erase(ready);
  }
  return order;
}

}  // namespace

Pipeline parse_pipeline(const json& document, const std::string& base, const std::string& where) {
  std::vector<Violation> violations;
  std::vector<PipelineJob> jobs;
  std::vector<std::string> pointers;
  Pipeline pipeline;
  const bool is_single = !document.is_object() || !document.contains("jobs");
  if (is_single) {
    pointers.emplace_back("");
    jobs.push_back(parse_job(document, base, "", violations));
    pipeline.name = jobs.front().spec.name;
  } else {
    ConfigReader reader(document, "");
    pipeline.name = reader.required_text("pipeline");
    if (!pipeline.name.empty() && !is_job_name(pipeline.name)) {
      reader.violation("pipeline", "expected a letter, then letters, digits, '-' or '_', found \"" +
                                       pipeline.name + "\"");
    }
    const json& entries = document["jobs"];
    if (!entries.is_array() || entries.empty()) {
      reader.violation("jobs",
                       "expected a list of at least one job, found " +
                           std::string(entries.is_array() ? "an empty one" : entries.type_name()));
    } else {
      for (std::size_t i = 0; i < entries.size(); ++i) {
        pointers.push_back("/jobs/" + std::to_string(i));
        jobs.push_back(parse_job(entries[i], base, pointers.back(), violations));
      }
    }
    reader.know("jobs");
    reader.reject_unknown_keys();
    violations.insert(violations.begin(), reader.violations().begin(), reader.violations().end());
  }
  check_names(jobs, pointers, violations);
  check_folders(jobs, pointers, violations);
  if (violations.empty()) pipeline.jobs = sorted(std::move(jobs), violations);
  if (!violations.empty()) throw ConfigError(where, std::move(violations));
  return pipeline;
}

void apply_pipeline_override(json& document, const std::string& assignment) {
  const std::string path = assignment.substr(0, assignment.find('='));
  const std::size_t dot = path.find('.');
  const std::string first = path.substr(0, dot);
  const std::string rest = dot == std::string::npos ? "" : assignment.substr(dot + 1);
  const auto name_of = [](const json& job) {
    const bool named = job.is_object() && job.contains("name") && job["name"].is_string();
    return named ? job["name"].get<std::string>() : std::string();
  };
  if (!document.is_object() || !document.contains("jobs") || !document["jobs"].is_array()) {
    apply_override(document, !rest.empty() && first == name_of(document) ? rest : assignment);
    return;
  }
  std::vector<std::string> names;
  for (json& job : document["jobs"]) {
    names.push_back(name_of(job));
    if (names.back() != first) continue;
    if (rest.empty()) {
      throw Error(ErrorCode::kUsage,
                  "--set " + assignment + ": expected job.key=value, found no key after the job");
    }
    apply_override(job, rest);
    return;
  }
  throw Error(ErrorCode::kUsage, "--set " + assignment + ": expected one of the jobs " +
                                     joined(names) + " before the first '.', found '" + first +
                                     "'");
}

}  // namespace onestep
