#include "cli/submit.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <sstream>
#include <thread>

#include "cli/follow.h"
#include "cli/interrupt.h"
#include "cli/job_commands.h"
#include "cli/progress_view.h"
#include "cli/verify.h"
#include "common/config.h"
#include "common/durable_file.h"
#include "common/error.h"
#include "common/pipeline.h"
#include "common/secret.h"

namespace onestep {
namespace {

using nlohmann::json;

double monotonic_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Bars only where they can be redrawn.
ProgressView make_view(bool to_error) {
  const int descriptor = to_error ? STDERR_FILENO : STDOUT_FILENO;
  const char* terminal = std::getenv("TERM");
  const bool redraw = ::isatty(descriptor) == 1 && terminal && std::string(terminal) != "dumb";
  winsize size{};
  const bool known = ::ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return ProgressView(to_error ? std::cerr : std::cout, redraw, known ? size.ws_col : 120);
}

FollowResult follow(const Client& client, const std::string& pipeline, bool json_output) {
  say_when_interrupted("stopped watching; the jobs go on. Watch them again with 'onestep follow " + pipeline +
                       "', stop one with 'onestep cancel JOB'");
  ProgressView view = make_view(json_output);
  const std::string target = "/api/v1/pipelines/" + percent_encode(pipeline);
  const FollowHooks hooks = {
      .fetch = [&] { return client.get(target); },
      .stream =
          [&](const std::string& after, const std::function<bool(const ServerEvent&)>& on_event) {
            client.stream(target + "/events?types=state,progress,alarm", after, on_event);
          },
      .now_s = monotonic_s,
      .sleep_s = [](double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); },
  };
  return follow_pipeline(hooks, view, {});
}

// `pipeline`: its id, for what may be done next.
int finish(const FollowResult& result, const std::string& pipeline, bool json_output) {
  for (const std::string& line : failure_lines(result)) std::cerr << "onestep: " << line << "\n";
  if (!result.succeeded) {
    std::cerr << "onestep: 'onestep show JOB' and 'onestep logs JOB' say more; 'onestep follow " << pipeline << " --resume' goes on\n";
  } else if (!json_output) {
    std::cout << success_line(result, pipeline) << std::endl;
  }
  if (json_output) std::cout << follow_summary(result).dump() << std::endl;
  return result.succeeded ? 0 : exit_status(ErrorCode::kJobFailed);
}

// What an export job made, into a folder of the user's choice; the list of digests last, so that a folder with one
// is whole.
void copy_export(const std::string& run, const std::string& folder) {
  const std::string list = read_file(run + "/SHA256SUMS");
  create_folders_durably(folder);
  std::istringstream lines(list);
  for (std::string digest, name; lines >> digest >> name;) {
    create_folders_durably(std::filesystem::path(folder + "/" + name).parent_path().string());
    write_file_durably(folder + "/" + name, read_file(run + "/" + name));
  }
  write_file_durably(folder + "/SHA256SUMS", list);
  verify_path(folder);
}

// Submits with a key of its own, so that an answer that got lost may be asked for again without submitting twice.
json post_once(const Client& client, const json& body) {
  constexpr int kTries = 3;
  const std::map<std::string, std::string> headers = {{"Idempotency-Key", "cli-" + random_hex(16)}};
  for (int left = kTries - 1;; --left) {
    try {
      return json::parse(client.request("POST", "/api/v1/jobs", body.dump(), headers).body);
    } catch (const Error& error) {
      // Refused at once: nobody has heard it, and nobody will.
      const bool lost = error.code() == ErrorCode::kUnavailable && std::string(error.what()).find("refused") == std::string::npos;
      if (!lost || left == 0) throw;
    } catch (const json::exception&) {
      throw Error(ErrorCode::kUnavailable, to_string(client.url()) + " answered with something that is no JSON; is it a Onestep coordinator?");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
}

std::string pipeline_id(const json& answer) { return answer.at("pipeline").at("id").get<std::string>(); }

}  // namespace

int submit_pipeline(const Client& client, const SubmitOptions& options) {
  const std::filesystem::path file = std::filesystem::absolute(options.file).lexically_normal();
  json document = read_json_file(file.string());
  for (const std::string& override_text : options.overrides) apply_pipeline_override(document, override_text);
  const std::string base = file.parent_path().string();
  parse_pipeline(document, base, options.file);

  const json answer = post_once(client, {{"spec", document}, {"base", base}});
  const std::string id = pipeline_id(answer);
  if (!options.follow) {
    if (options.json) {
      std::cout << answer.dump() << "\n";
    } else {
      std::cout << "submitted " << id << ": " << answer.at("jobs").size() << " jobs; watch them with 'onestep follow "
                << id << "'\n";
    }
    return 0;
  }
  (options.json ? std::cerr : std::cout) << "submitted " << id << std::endl;
  return finish(follow(client, id, options.json), id, options.json);
}

int follow_submitted(const Client& client, const std::string& pipeline, bool resume, bool json_output) {
  if (resume) {
    const json answer = client.get("/api/v1/pipelines/" + percent_encode(pipeline));
    for (const json& job : answer.at("jobs")) {
      const std::string state = job.value("state", "");
      if (state == "failed" || state == "cancelled" || state == "interrupted") {
        client.post(job_target(job.at("id").get<std::string>(), "/resume"));
      }
    }
  }
  return finish(follow(client, pipeline, json_output), pipeline, json_output);
}

int export_model(const Client& client, const std::string& job, const std::string& out, const ExportChoice& choice, bool json_output) {
  const json source = client.get(job_target(job));
  const std::string kind = source.value("kind", "");
  if (kind != "distill" && kind != "train_teacher") {
    throw Error(ErrorCode::kUsage, job + ": expected a distill or train_teacher job, found " + kind);
  }
  const std::string folder = std::filesystem::absolute(out).lexically_normal().string();
  if (std::filesystem::exists(folder) && !std::filesystem::is_empty(folder)) {
    throw Error(ErrorCode::kConflict, folder + ": expected a new or empty folder, found files in it");
  }
  const json spec = {{"name", "export"},
                     {"kind", "export"},
                     {"model", source.at("run_folder")},
                     {"selection", choice.selection},
                     {"dtype", choice.dtype}};
  const json answer = post_once(client, {{"spec", spec}, {"base", source.at("run_folder")}});
  const FollowResult result = follow(client, pipeline_id(answer), json_output);
  const int status = finish(result, pipeline_id(answer), json_output);
  if (status != 0) return status;
  const json done = client.get(job_target(result.jobs.at(0).at("id").get<std::string>()));
  copy_export(done.at("run_folder").get<std::string>(), folder);
  if (!json_output) std::cout << "exported to " << folder << "\n";
  return 0;
}

}  // namespace onestep
