// onestep-worker: one rank of one attempt of one job.
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>

#include "common/build_info.h"
#include "common/checkpoint_manifest.h"
#include "common/config.h"
#include "common/durable_file.h"
#include "common/error.h"
#include "common/log.h"
#include "common/pipeline.h"
#include "common/run_folder.h"
#include "worker/comm/make_communicator.h"
#include "worker/comm/mpi_session.h"
#include "worker/run/device_session.h"
#include "worker/run/jobs.h"
#include "worker/run/memory_plan.h"
#include "worker/run/stop_signal.h"
#include "worker/run/telemetry_client.h"
#include "worker/tensors/heap.h"

namespace onestep {
namespace {

struct Arguments {
  std::string spec;
  std::string output;
  std::string job;          // given by a coordinator
  std::string coordinator;  // its address file
  int attempt = 0;          // 0: the next one
  std::string plan;                    // name of a job
  std::vector<std::string> overrides;  // of the plan
  int ranks = 0;                       // of the plan
};

Arguments parse_arguments(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Runs one job. Start it under mpirun for several ranks; without mpirun it is one rank.", "onestep-worker");
  app.add_option("JOB", arguments.spec, "job spec (JSON file)")->required();
  app.add_option("--output", arguments.output, "run folder (default: the spec's output, else onestep-runs/NAME)");
  app.add_option("--job-id", arguments.job, "job id at the coordinator");
  app.add_option("--attempt", arguments.attempt, "number of this attempt (default: the next one in the run folder)");
  app.add_option("--coordinator", arguments.coordinator, "the coordinator's address file");
  app.add_option("--plan", arguments.plan, "run nothing: print what this job of the file, a pipeline or a job, will take, as JSON");
  app.add_option("--set", arguments.overrides, "with --plan: JOB.KEY=VALUE, change one value; may be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--ranks", arguments.ranks, "with --plan: so many ranks, not the specs'")->check(CLI::Range(1, 4096));
  app.set_version_flag("--version", std::string("onestep-worker ") + build_version() + " (" + build_commit() + ")");
  app.footer("Example: mpirun -n 2 onestep-worker configs/digits/distill.json --output runs/digits\n"
             "Exit status: 0 done, 1 internal, 2 usage, 3 job spec, 4 data, 5 I/O, 8 conflict, 9 stopped and saved.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int status = app.exit(error);
    std::exit(status == 0 ? 0 : exit_status(ErrorCode::kUsage));
  }
  return arguments;
}

// "portable" pins what the libraries choose by processor; they read this once, so it comes before their first use.
void pin_numerics(const JobSpec& spec) {
  if (spec.numerics == "portable") {
    setenv("ATEN_CPU_CAPABILITY", "avx2", 1);
    setenv("ONEDNN_MAX_CPU_ISA", "AVX2", 1);
    setenv("MKL_CBWR", "AVX2,STRICT", 1);
  }
  // One thread a rank: sums split over threads have another order. ATen's CPU kernels are then deterministic as they are.
  at::set_num_threads(1);
}

// A job for a device needs a program that starts with CUDA's libraries: this process becomes the one beside it, where there is one. Otherwise the job is
// refused where the spec is read.
void become_device_worker(const Arguments& arguments, char** argv) {
  if (has_device_part() || !arguments.plan.empty() || !file_exists(arguments.spec)) return;
  const auto spec = nlohmann::json::parse(read_file(arguments.spec), nullptr, /*allow_exceptions=*/false);
  if (!spec.is_object() || spec.value("device", nlohmann::json()) != "cuda") return;
  const std::string program = std::filesystem::read_symlink("/proc/self/exe").string() + "-cuda";
  if (!file_exists(program)) return;
  // What would only be seen by the loader there is told here.
  if (dlopen("libtorch_cuda.so", RTLD_LAZY) == nullptr) {
    throw Error(ErrorCode::kConfig, std::string("device: cuda: expected CUDA's libraries, of the wheels that torch comes with, in LD_LIBRARY_PATH; found: ") +
                                        dlerror());
  }
  execv(program.c_str(), argv);
  throw Error(ErrorCode::kIo, program + ": can't be run");
}

// A coordinator's attempt: everything a rank says goes into a file of its own; standard output stays for the last line.
void redirect_log(const std::string& path) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file < 0 || dup2(file, STDERR_FILENO) < 0) {
    throw Error(ErrorCode::kIo, path + ": can't open the log file");
  }
  close(file);
}

int next_attempt(const std::string& run) {
  int attempt = 1;
  while (file_exists(attempt_outcome_file(run, attempt))) ++attempt;
  // An attempt that was killed leaves no outcome, but may have left checkpoints.
  for (const std::string& folder : list_checkpoints(checkpoints_folder(run))) {
    attempt = std::max(attempt, std::atoi(folder.substr(folder.rfind("-a") + 2).c_str()) + 1);
  }
  return attempt;
}

JobOutcome outcome_of(const JobSpec& spec, int attempt) {
  JobOutcome outcome;
  outcome.name = spec.name;
  outcome.kind = spec.kind;
  outcome.attempts = attempt;
  outcome.result = nlohmann::json::object();
  return outcome;
}

void record(const std::string& run, const JobOutcome& outcome, int attempt, TelemetryClient& telemetry) {
  const std::string text = to_json(outcome).dump(2) + "\n";
  if (outcome.state == "succeeded") write_file_durably(outcome_file(run), text);
  write_file_durably(attempt_outcome_file(run, attempt), text);
  telemetry.post(MessageType::kFinalState, {{"attempt", attempt}, {"outcome", to_json(outcome)}});
  telemetry.drain(5.0);
}

struct Process {
  std::unique_ptr<Communicator> communicator;
  std::unique_ptr<TelemetryClient> telemetry;
  std::optional<JobSpec> spec;
  DeviceSession device;  // of a job with device "cuda"
  std::string run;
  int attempt = 0;
  bool has_coordinator = false;
};

void prepare(Process& process, const Arguments& arguments) {
  const std::string path = std::filesystem::absolute(arguments.spec).lexically_normal().string();
  process.spec = parse_job_spec(read_json_file(path), std::filesystem::path(path).parent_path().string(), path);
  const JobSpec& spec = *process.spec;
  for (const std::string& name : references(spec)) {
    throw Error(ErrorCode::kConfig, path + ": \"@" + name + "\" names a job of a pipeline; alone, the worker needs a path");
  }
  pin_numerics(spec);
  if (spec.reduction == "exact" && is_training_kind(spec.kind)) {
    const int ranks = process.communicator->size();
    if (spec.micro_batches % ranks != 0 || (ranks & (ranks - 1)) != 0) {
      throw Error(ErrorCode::kConfig, "ranks: " + std::to_string(ranks) + " can't share " +
                                          std::to_string(spec.micro_batches) +
                                          " micro-batches: expected a power of two that divides them");
    }
  }
  if (spec.device == "cuda") process.device = open_device(*process.communicator);
  process.run = std::filesystem::absolute(!arguments.output.empty() ? arguments.output
                                          : !spec.output.empty()    ? spec.output
                                                                    : "onestep-runs/" + spec.name)
                    .lexically_normal()
                    .string();
  if (spec.kind == "sample") return;
  if (process.communicator->rank() == 0) {
    create_folders_durably(process.run + "/logs");
    process.attempt = arguments.attempt > 0 ? arguments.attempt : next_attempt(process.run);
  }
  process.attempt = std::stoi(process.communicator->broadcast_text(std::to_string(process.attempt), 0));
  if (!arguments.coordinator.empty()) {
    redirect_log(log_file(process.run, process.attempt, process.communicator->rank()));
  }
  set_log_context(spec.name + " a" + std::to_string(process.attempt) + " r" + std::to_string(process.communicator->rank()),
                  {.job = arguments.job.empty() ? spec.name : arguments.job,
                   .attempt = process.attempt,
                   .rank = process.communicator->rank()});
}

// One of the file's jobs, planned and not run.
int print_plan(const Arguments& arguments) {
  const std::filesystem::path path = std::filesystem::absolute(arguments.spec).lexically_normal();
  nlohmann::json document = read_json_file(path.string());
  for (const std::string& text : arguments.overrides) apply_pipeline_override(document, text);
  const Pipeline pipeline = parse_pipeline(document, path.parent_path().string(), path.string());
  at::set_num_threads(1);
  // A run has MPI in its process: the plan's process is to weigh as much.
  const MpiSession session;
  std::cout << plan_job(pipeline, arguments.plan, arguments.ranks).dump() << std::endl;
  return 0;
}

// The most that any rank held, in bytes. Collective.
std::int64_t peak_bytes_a_rank(Communicator& communicator) {
  const std::int64_t mine = peak_resident_bytes();
  std::vector<std::int64_t> all(static_cast<std::size_t>(communicator.size()));
  communicator.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)));
  return *std::max_element(all.begin(), all.end());
}

// A finished training run is not trained again; other kinds are cheap or find their own finished parts.
std::optional<JobOutcome> finished(const Process& process) {
  if (process.spec->kind == "sample" || !is_training_kind(process.spec->kind)) return std::nullopt;
  return read_outcome(outcome_file(process.run));
}

JobOutcome run(Process& process) {
  const JobSpec& spec = *process.spec;
  JobOutcome outcome = outcome_of(spec, std::max(1, process.attempt));
  const RunContext context{spec, process.run, process.attempt, *process.communicator,
                           *process.telemetry, process.has_coordinator, process.device.name, process.device.between_devices.get()};
  const auto start = std::chrono::steady_clock::now();
  const std::optional<JobOutcome> earlier = finished(process);
  const JobResult made = run_job(context);
  outcome.state = "succeeded";
  outcome.digest = made.digest;
  outcome.result = made.result;
  outcome.result["ranks"] = process.communicator->size();
  outcome.result["commit"] = build_commit();
  outcome.result["peak_bytes_a_rank"] = peak_bytes_a_rank(*process.communicator);
  outcome.result["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (earlier && earlier->digest == outcome.digest) outcome = *earlier;
  return outcome;
}

int worker_main(int argc, char** argv) {
  keep_freed_memory();
  const Arguments arguments = parse_arguments(argc, argv);
  Process process;
  try {
    if (!arguments.plan.empty()) return print_plan(arguments);
    become_device_worker(arguments, argv);
    process.communicator = make_communicator();
    process.has_coordinator = !arguments.coordinator.empty();
    install_stop_signals();
    prepare(process, arguments);
    process.telemetry = arguments.coordinator.empty()
                            ? std::make_unique<TelemetryClient>()
                            : std::make_unique<TelemetryClient>(TelemetryOptions{
                                  arguments.coordinator, outbox_folder(process.run), arguments.job, process.attempt,
                                  process.communicator->rank(), process.communicator->size(),
                                  worker_token_file(process.run, process.attempt)});
    const JobOutcome outcome = run(process);
    const bool is_root = process.communicator->rank() == 0;
    if (is_root && process.spec->kind != "sample") record(process.run, outcome, process.attempt, *process.telemetry);
    process.communicator->barrier();
    if (is_root) {
      nlohmann::json line = summary_json(outcome);
      if (process.spec->kind == "sample") line["result"] = outcome.result;
      std::cout << line.dump() << std::endl;
    }
    return 0;
  } catch (const Error& error) {
    const bool stopped = error.code() == ErrorCode::kInterrupted;
    log(stopped ? LogLevel::kInfo : LogLevel::kError, error.what());
    const bool is_root = !process.communicator || process.communicator->rank() == 0;
    if (process.spec && process.telemetry && (is_root || !stopped) && process.attempt > 0) {
      JobOutcome outcome = outcome_of(*process.spec, process.attempt);
      outcome.state = stopped ? "interrupted" : "failed";
      outcome.error_code = to_string(error.code());
      outcome.error = error.what();
      try {
        record(process.run, outcome, process.attempt, *process.telemetry);
      } catch (const std::exception& second) {
        log_error(std::string("the outcome could not be recorded: ") + second.what());
      }
      if (is_root) std::cout << summary_json(outcome).dump() << std::endl;
    }
    // Everyone stops at the same vote; any other error may find ranks inside a collective.
    if (stopped && process.communicator) {
      process.communicator->barrier();
    } else {
      abort_mpi(exit_status(error.code()));
    }
    return exit_status(error.code());
  } catch (const c10::Error& error) {
    log_error(std::string("internal error: ") + error.what_without_backtrace());
    abort_mpi(exit_status(ErrorCode::kInternal));
    return exit_status(ErrorCode::kInternal);
  } catch (const std::exception& error) {
    log_error(std::string("internal error: ") + error.what());
    abort_mpi(exit_status(ErrorCode::kInternal));
    return exit_status(ErrorCode::kInternal);
  }
}

}  // namespace
}  // namespace onestep

int main(int argc, char** argv) { return onestep::worker_main(argc, argv); }
