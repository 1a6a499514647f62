// A coordinator with processes and a clock that the tests make up; what it writes to disk is real.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/checkpoint_manifest.h"
#include "common/config.h"
#include "common/durable_file.h"
#include "common/run_folder.h"
#include "coordinator/coordinator.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {

using nlohmann::json;

// The machine's processes: they outlive a coordinator that is killed.
struct FakeMachine {
  struct Process {
    LaunchRequest request;
    std::optional<ProcessEnd> end;
    bool terminated = false;
    bool killed = false;
  };
  std::map<std::int64_t, Process> processes;
  std::int64_t next_pid = 100;
  std::optional<Error> launch_error;
  std::string launcher = "local";
  std::optional<Capacity> capacity;  // none: the configured slots, shared
  bool capacity_varies = false;
  std::string whereabouts;
  bool pending = false;
  double unnoticed_loss_s = 0;
  bool die_after_launch = false;  // as a coordinator that is killed before it notes the process

  Process& of(const std::string& job, int attempt) {
    for (auto& [pid, process] : processes) {
      if (process.request.job == job && process.request.attempt == attempt) return process;
    }
    throw std::runtime_error("never launched: " + job + " attempt " + std::to_string(attempt));
  }
  std::vector<std::string> launched() const {
    std::vector<std::string> names;
    for (const auto& [pid, process] : processes) {
      names.push_back(process.request.job + " a" + std::to_string(process.request.attempt));
    }
    return names;
  }
};

struct KilledCoordinator {};

class FakeLauncher : public Launcher {
 public:
  explicit FakeLauncher(FakeMachine& machine) : machine_(machine) {}
  std::string name() const override { return machine_.launcher; }
  std::optional<Capacity> capacity(int configured) override { return machine_.capacity.value_or(Capacity{configured, true}); }
  bool capacity_varies() const override { return machine_.capacity_varies; }
  std::string whereabouts(const ProcessIdentity&) override { return machine_.whereabouts; }
  bool is_pending(const ProcessIdentity&) override { return machine_.pending; }
  double unnoticed_loss_s() const override { return machine_.unnoticed_loss_s; }
  ProcessIdentity launch(const LaunchRequest& request) override {
    if (machine_.launch_error) throw Error(*machine_.launch_error);
    const std::int64_t pid = machine_.next_pid++;
    machine_.processes[pid] = {request, std::nullopt, false, false};
    if (machine_.die_after_launch) throw KilledCoordinator();
    return {pid, pid * 10};
  }
  std::optional<ProcessEnd> poll(const ProcessIdentity& process) override {
    const auto found = machine_.processes.find(process.pid);
    if (found == machine_.processes.end()) return ProcessEnd{false, "never existed"};
    EXPECT_EQ(process.start_time, process.pid * 10);
    return found->second.end;
  }
  std::optional<ProcessIdentity> find(const LaunchRequest& request) override {
    for (const auto& [pid, process] : machine_.processes) {
      if (process.end || process.request.job != request.job) continue;
      if (process.request.attempt == request.attempt) return ProcessIdentity{pid, pid * 10};
    }
    return std::nullopt;
  }
  void terminate(const ProcessIdentity& process) override {
    machine_.processes.at(process.pid).terminated = true;
  }
  int kill_all(const LaunchRequest& request) override {
    const std::optional<ProcessIdentity> found = find(request);
    if (!found) return 0;
    machine_.processes.at(found->pid).killed = true;
    machine_.processes.at(found->pid).end = ProcessEnd{false, "mpirun ended by signal 9 (Killed)"};
    return 1;
  }

 private:
  FakeMachine& machine_;
};

inline const json kDetector = {
    {"name", "detector"}, {"kind", "train_detector"}, {"dataset", {{"path", "digits.h5"}}}};
inline const json kTeacher = {
    {"name", "teacher"}, {"kind", "train_teacher"}, {"dataset", {{"path", "digits.h5"}}}};
inline const json kPairs = {{"name", "pairs"}, {"kind", "generate_pairs"}, {"teacher", "@teacher"},
                     {"count", 500},    {"rows_per_shard", 125},    {"batch", 125},
                     {"ranks", 2}};
inline const json kDistill = {
    {"name", "distill"},
    {"kind", "distill"},
    {"teacher", "@teacher"},
    {"pairs", "@pairs"},
    {"evaluation",
     {{"detector", "@detector"}, {"dataset", {{"path", "digits.h5"}}}, {"count", 500}}}};

class CoordinatorTest : public testing::Test {
 protected:
  void SetUp() override { restart(); }

  // Kills the coordinator, as it were, and starts it again.
  void restart() {
    coordinator_.reset();
    coordinator_ =
        std::make_unique<Coordinator>(options(), std::make_unique<FakeLauncher>(machine_));
    coordinator_->set_sender([this](const RankId& to, const Message& command) {
      sent_.push_back(to.job + " a" + std::to_string(to.attempt) + " " +
                      std::to_string(static_cast<int>(command.type)));
    });
  }
  CoordinatorOptions options() {
    return {.data = folder_ / "data", .slots = slots_, .clock = [this] { return now_; }};
  }

  PipelineRecord submit(const std::vector<json>& jobs) {
    const json document = {{"pipeline", "digits"}, {"jobs", jobs}};
    return coordinator_->submit(parse_pipeline(document, folder_.path(), "test"));
  }
  void tick(double seconds = 0.2) {
    now_ += seconds;
    coordinator_->tick();
  }
  JobRecord job(const std::string& id) { return coordinator_->job(id); }
  std::string state(const std::string& id) { return to_string(job(id).state); }

  HelloAnswer hello(const std::string& id, int attempt, int rank = 0) {
    Hello hello;
    hello.job = id;
    hello.attempt = attempt;
    hello.rank = rank;
    hello.ranks = job(id).ranks;
    hello.host = "here";
    return coordinator_->hello(hello);
  }
  MessageAnswer tell(const RankId& from, MessageType type, json body, std::uint64_t sequence = 0) {
    return coordinator_->on_messages({{from, {type, sequence, std::move(body)}}}).front();
  }
  JobOutcome outcome(const std::string& id, const std::string& state,
                     ErrorCode code = ErrorCode::kInternal, const json& result = json::object()) {
    JobOutcome outcome;
    outcome.name = job(id).name;
    outcome.kind = job(id).kind;
    outcome.state = state;
    outcome.result = result;
    if (state == "succeeded") outcome.digest = std::string(64, 'd');
    if (state == "failed") {
      outcome.error_code = to_string(code);
      outcome.error = "something about " + std::string(to_string(code));
    }
    return outcome;
  }
  // The attempt's rank 0 writes its outcome; then mpirun ends.
  void end(const std::string& id, int attempt, const JobOutcome& outcome) {
    spit(attempt_outcome_file(coordinator_->run_folder(id), attempt), to_json(outcome).dump());
    machine_.of(id, attempt).end = ProcessEnd{outcome.state != "failed", "mpirun ended"};
    tick();
  }
  void succeed(const std::string& id, int attempt = 1) {
    end(id, attempt, outcome(id, "succeeded"));
  }
  void die(const std::string& id, int attempt) {
    machine_.of(id, attempt).end = ProcessEnd{false, "mpirun ended by signal 9 (Killed)"};
    tick();
  }
  json write_checkpoint(const std::string& id, std::int64_t iteration, int attempt) {
    const std::string folder = checkpoints_folder(coordinator_->run_folder(id)) + "/" +
                               checkpoint_folder_name(iteration, attempt);
    create_folders_durably(folder);
    CheckpointManifest manifest;
    manifest.kind = job(id).kind;
    manifest.attempt = attempt;
    manifest.iteration = iteration;
    manifest.images = iteration * 128;
    manifest.config_sha256 = std::string(64, 'a');
    manifest.config = json::object();
    manifest.state = json::object();
    write_checkpoint_manifest(folder, manifest);
    return {{"attempt", attempt},
            {"iteration", iteration},
            {"images", iteration * 128},
            {"folder", folder},
            {"digest", checkpoint_digest(folder)},
            {"bytes", 0}};
  }
  // A distill job that runs in its first attempt, everything before it done.
  std::string run_distill(const json& spec = kDistill) {
    submit({kDetector, kTeacher, kPairs, spec});
    tick();
    succeed("detector-1");
    succeed("teacher-2");
    tick();
    succeed("pairs-3");
    tick();
    EXPECT_FALSE(hello("distill-4", 1).refusal);
    EXPECT_EQ(state("distill-4"), "running");
    return "distill-4";
  }
  void commit_checkpoint(const std::string& id, std::int64_t iteration, std::uint64_t sequence) {
    const MessageAnswer answer = tell({id, 1, 0}, MessageType::kCheckpointCommitted,
                                      write_checkpoint(id, iteration, 1), sequence);
    ASSERT_FALSE(answer.refusal) << answer.refusal->reason;
    EXPECT_EQ(answer.acknowledge, sequence);
  }

  TempFolder folder_;
  double now_ = 1'700'000'000;
  int slots_ = 2;
  FakeMachine machine_;
  std::vector<std::string> sent_;
  std::unique_ptr<Coordinator> coordinator_;
};

}  // namespace onestep
