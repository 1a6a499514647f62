#include "common/prompt_file.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "common/config.h"
#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"

namespace onestep {
namespace {

constexpr std::size_t kMaxProblems = 20, kMaxBytes = 65536;

// What is wrong with a text; "" if nothing.
std::string problem_of(const std::string& text) {
  if (text.empty()) return "expected a text, found an empty one";
  if (text.size() > kMaxBytes) return "expected at most 65536 bytes, found " + std::to_string(text.size());
  const auto is_control = [](char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7F; };
  const auto control = std::find_if(text.begin(), text.end(), is_control);
  if (control != text.end()) {
    return "expected no control character, found byte " + std::to_string(static_cast<int>(*control)) + " at " +
           std::to_string(control - text.begin());
  }
  try {
    (void)nlohmann::json(text).dump();  // refuses what is not UTF-8
  } catch (const nlohmann::json::type_error&) {
    return "expected UTF-8, found other bytes";
  }
  return "";
}

// The prompt of one line of JSON.
std::string text_of_json(std::string_view line, std::string& problem) {
  std::string text;
  try {
    const nlohmann::json document = parse_json(std::string(line), "line");
    ConfigReader reader(document, "");
    text = reader.required_text("text");
    reader.reject_unknown_keys();
    for (const Violation& violation : reader.violations()) {
      problem += (problem.empty() ? "" : "; ") + violation.pointer + ": " + violation.message;
    }
  } catch (const Error& error) {
    problem = error.what();
  }
  return text;
}

}  // namespace

PromptFile read_prompt_file(const std::string& path) {
  const std::string content = read_file(path);
  const bool is_json = path.ends_with(".jsonl");
  PromptFile prompts;
  prompts.sha256 = sha256(content);
  std::vector<std::string> problems;
  std::string_view rest = content;
  for (std::size_t number = 1; !rest.empty(); ++number) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    std::string problem;
    std::string text = is_json ? text_of_json(line, problem) : std::string(line);
    if (problem.empty()) problem = problem_of(text);
    if (!problem.empty()) problems.push_back("line " + std::to_string(number) + ": " + problem);
    prompts.texts.push_back(std::move(text));
  }
  if (prompts.texts.empty()) problems.emplace_back("expected a prompt a line, found none");
  if (problems.empty()) return prompts;
  std::string message = path + ": " + std::to_string(problems.size()) + " lines are no prompts";
  for (std::size_t i = 0; i < std::min(problems.size(), kMaxProblems); ++i) message += "\n  " + problems[i];
  throw Error(ErrorCode::kCorrupt, message);
}

}  // namespace onestep
