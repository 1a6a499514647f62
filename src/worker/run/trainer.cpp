#include "worker/run/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <memory>
#include <optional>

#include "common/build_info.h"
#include "common/checkpoint_manifest.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/log.h"
#include "common/run_folder.h"
#include "worker/comm/vote.h"
#include "worker/run/checkpoint_buffers.h"
#include "worker/run/checkpointer.h"
#include "worker/run/stop_signal.h"

namespace onestep {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

// What computes: the device, or the processor.
std::string processor_of(const RunContext& context) { return context.device_name.empty() ? processor_name() : context.device_name; }

class Loop {
 public:
  Loop(const RunContext& context, const nlohmann::json& bit_config, Training& training)
      : context_(context),
        bit_config_(bit_config),
        training_(training),
        checkpoints_(checkpoints_folder(context.run)),
        checkpointer_(checkpoints_, context.communicator.rank(), context.communicator.size()) {}

  TrainingOutcome run() {
    const std::int64_t total = training_.num_iterations();
    const std::int64_t first = resume();
    training_.start_at(first);
    const auto start = Clock::now();
    report_mark_ = start;
    report_images_ = training_.images_after(first);
    for (std::int64_t iteration = first; iteration < total; ++iteration) {
      const auto figures = training_.iterate(iteration);
      const std::int64_t done = iteration + 1;
      set_log_step(done);
      check_finite(figures, done, total);
      const bool stopping = react(done, total);
      if (done % context_.spec.report_every == 0 || done == total || stopping) report(done, total, figures);
      if (stopping) stop(done);
    }
    TrainingOutcome outcome;
    outcome.first_iteration = first;
    outcome.seconds = seconds_since(start);
    outcome.images_per_second =
        total > first ? static_cast<double>(training_.images_after(total) - training_.images_after(first)) /
                            outcome.seconds
                      : 0;
    if (last_saved_ != total) save(total);
    finish_saving();
    return outcome;
  }

 private:
  [[nodiscard]] bool is_root() const { return context_.communicator.rank() == 0; }

  // Returns the iteration to go on with. Rank 0 chooses; all ranks read.
  std::int64_t resume() {
    std::string folder;
    if (is_root()) {
      const CheckpointSearch search = find_newest_checkpoint(checkpoints_);
      for (const std::string& rejected : search.rejected) keep_for_inspection(rejected);
      if (search.newest) folder = search.newest->folder;
    }
    folder = context_.communicator.broadcast_text(folder, 0);
    if (folder.empty()) return 0;

    CheckpointManifest manifest = read_checkpoint_manifest(folder, /*verify_files=*/false);
    const auto differing = differing_keys(manifest.config, bit_config_);
    if (!differing.empty()) {
      std::string message = folder + ": made by another configuration; " + std::to_string(differing.size()) +
                            " keys differ (expected: the checkpoint's)";
      for (const std::string& key : differing) message += "\n  " + key;
      throw Error(ErrorCode::kMismatch, message);
    }
    if (manifest.processor != processor_of(context_) && is_root()) {
      log_warning("resuming on another kind of processor: the checkpoint is of \"" + manifest.processor +
                  "\", this is \"" + processor_of(context_) + "\"; bits may differ from an undisturbed run");
    }
    const std::int64_t iteration = manifest.iteration;
    const nlohmann::json counters = manifest.state.at("counters");
    const CheckpointBuffers checkpoint(folder, std::move(manifest));
    for (NetworkUpdater* updater : training_.updaters()) load(checkpoint, counters, *updater);
    if (is_root()) log_info("resumed from " + folder + " at iteration " + std::to_string(iteration));
    last_saved_ = iteration;
    return iteration;
  }

  // A bad checkpoint is named, skipped, and pinned so that keep_last leaves it alone. `rejected` is "folder: why".
  void keep_for_inspection(const std::string& rejected) const {
    log_warning("checkpoint skipped: " + rejected);
    for (const std::string& folder : list_checkpoints(checkpoints_)) {
      if (rejected.starts_with(folder + ": ")) pin_checkpoint(folder);
    }
  }

  static void load(const CheckpointBuffers& checkpoint, const nlohmann::json& counters, NetworkUpdater& updater) {
    torch::NoGradGuard no_grad;
    for (StateBuffer& buffer : updater.buffers()) {
      const std::int64_t offset = buffer.is_piece ? updater.piece_offset() : 0;
      buffer.values.copy_(checkpoint.read(buffer.name, offset, buffer.values.numel()));
    }
    updater.set_counters(counters.at(updater.name()));
  }

  // Told before the attempt ends of it, so that the coordinator sees which figures. All ranks have the same ones.
  void check_finite(const std::map<std::string, double>& figures, std::int64_t done, std::int64_t total) {
    for (const auto& [key, value] : figures) {
      if (std::isfinite(value)) continue;
      if (is_root()) report_to_coordinator(done, total, figures, 0);
      throw Error(ErrorCode::kInternal, "\"" + key + "\" is not finite at iteration " + std::to_string(done));
    }
  }

  // Commands, signals, checkpoints due: decided by a vote, so that all ranks do the same at the same iteration.
  // True when the run is to stop now.
  bool react(std::int64_t done, std::int64_t total) {
    Vote mine{};
    for (const TelemetryCommand& command : context_.telemetry.poll()) {
      if (command.type == MessageType::kStop) mine.stop = 1;
      if (command.type == MessageType::kCheckpointNow) mine.checkpoint = 1;
      if (command.type == MessageType::kRefused) {
        throw Error(ErrorCode::kConflict, "the coordinator refuses this attempt: " +
                                              command.body.value("reason", std::string("no reason given")));
      }
    }
    if (stop_signal_received()) mine.stop = 1;
    const std::int64_t every = context_.spec.checkpoint.every_iterations;
    const bool due = every > 0 && done % every == 0 && done < total;
    add_writer_state(mine);
    const std::vector<Vote> votes = vote(context_.communicator, mine);
    commit_if_all_done(votes);
    const auto any = [&votes](auto member) {
      return std::any_of(votes.begin(), votes.end(), [member](const Vote& v) { return v.*member != 0; });
    };
    const bool stopping = any(&Vote::stop) && done < total;
    if (due || stopping || any(&Vote::checkpoint)) save(done);
    return stopping;
  }

  void add_writer_state(Vote& mine) {
    if (!pending_) return;
    if (!written_) written_ = checkpointer_.done();
    if (written_) {
      mine.writer_done = 1;
      mine.bytes = written_->bytes;
      std::copy(written_->sha256.begin(), written_->sha256.end(), mine.sha256);
    }
  }

  // What this rank writes of each of the updater's buffers: its piece; with reduction "fast", where every rank holds everything, a
  // share of it.
  [[nodiscard]] PieceRange saved_range(const NetworkUpdater& updater) const {
    if (context_.spec.reduction != "fast") return {updater.piece_offset(), updater.piece_length()};
    const std::int64_t rank = context_.communicator.rank(), ranks = context_.communicator.size();
    const std::int64_t first = updater.piece_length() * rank / ranks;
    return {first, updater.piece_length() * (rank + 1) / ranks - first};
  }

  void save(std::int64_t done) {
    finish_saving();
    if (last_saved_ == done) return;
    std::vector<CheckpointBuffer> buffers;
    pieces_.clear();
    std::vector<torch::Tensor> copies;  // of what lies on a device, until the snapshot is made
    nlohmann::json counters;
    for (NetworkUpdater* updater : training_.updaters()) {
      counters[updater->name()] = updater->counters();
      const PieceRange saved = saved_range(*updater);
      for (const StateBuffer& buffer : updater->buffers()) {
        const auto piece =
            buffer.values.narrow(0, saved.offset - (buffer.is_piece ? updater->piece_offset() : 0), saved.length).cpu();
        copies.push_back(piece);
        buffers.push_back({buffer.name, saved.offset,
                           {piece.const_data_ptr<float>(), static_cast<std::size_t>(piece.numel())}});
        pieces_.push_back({buffer.name, saved.offset, piece.numel(), ""});
      }
    }
    manifest_ = {};
    manifest_.kind = context_.spec.kind;
    manifest_.attempt = context_.attempt;
    manifest_.iteration = done;
    manifest_.images = training_.images_after(done);
    manifest_.config = bit_config_;
    manifest_.config_sha256 = sha256(bit_config_.dump());
    manifest_.commit = build_commit();
    manifest_.processor = processor_of(context_);
    manifest_.reduction = context_.spec.reduction;
    manifest_.state = training_.description();
    manifest_.state["counters"] = counters;
    checkpointer_.snapshot(done, context_.attempt, buffers);
    pending_ = true;
    last_saved_ = done;
  }

  // All ranks' shards are durable: rank 0 writes the manifest. Every rank calls this with the same votes.
  void commit_if_all_done(const std::vector<Vote>& votes) {
    if (!pending_ ||
        !std::all_of(votes.begin(), votes.end(), [](const Vote& v) { return v.writer_done != 0; })) {
      return;
    }
    const auto all_pieces = context_.communicator.gather_texts(pieces_json().dump(), 0);
    if (is_root()) {
      for (std::size_t rank = 0; rank < votes.size(); ++rank) {
        const std::string file = Checkpointer::shard_name(static_cast<int>(rank), context_.communicator.size());
        manifest_.files.push_back({file, votes[rank].bytes, std::string(votes[rank].sha256, 64)});
        for (const auto& piece : nlohmann::json::parse(all_pieces[rank])) {
          manifest_.pieces.push_back({piece.at("buffer"), piece.at("offset"), piece.at("length"), file});
        }
      }
      const std::string folder = checkpointer_.commit(manifest_, static_cast<int>(context_.spec.checkpoint.keep_last));
      context_.telemetry.post(MessageType::kCheckpointCommitted, {{"attempt", context_.attempt},
                                                                  {"iteration", manifest_.iteration},
                                                                  {"images", manifest_.images},
                                                                  {"folder", folder},
                                                                  {"digest", checkpoint_digest(folder)},
                                                                  {"bytes", total_bytes()}});
      log_info("checkpoint committed: " + folder);
    }
    pending_ = false;
    written_.reset();
  }

  [[nodiscard]] nlohmann::json pieces_json() const {
    auto json = nlohmann::json::array();
    for (const CheckpointPiece& piece : pieces_) {
      json.push_back({{"buffer", piece.buffer}, {"offset", piece.offset}, {"length", piece.length}});
    }
    return json;
  }

  [[nodiscard]] std::uint64_t total_bytes() const {
    std::uint64_t bytes = 0;
    for (const CheckpointFile& file : manifest_.files) bytes += file.bytes;
    return bytes;
  }

  void finish_saving() {
    if (!pending_) return;
    checkpointer_.wait();
    Vote mine{};
    add_writer_state(mine);
    commit_if_all_done(vote(context_.communicator, mine));
    if (pending_) throw Error(ErrorCode::kInternal, "a rank's checkpoint shard is not done after waiting for it");
  }

  void stop(std::int64_t done) {
    finish_saving();
    throw Error(ErrorCode::kInterrupted, "stopped on request after iteration " + std::to_string(done) + "; saved in " +
                                             checkpoint_folder_name(done, context_.attempt));
  }

  void report_to_coordinator(std::int64_t done, std::int64_t total, const std::map<std::string, double>& figures, double rate) {
    const std::int64_t images = training_.images_after(done), images_total = training_.images_after(total);
    context_.telemetry.post(
        MessageType::kProgress,
        {{"stage", training_.stage_of(done - 1)},
         {"iteration", done},
         {"iterations", total},
         {"images", images},
         {"images_total", images_total},
         {"images_per_second", rate},
         {"seconds_left", smooth_rate_ > 0 ? static_cast<double>(images_total - images) / smooth_rate_ : 0.0},
         {"metrics", figures}});
  }

  void report(std::int64_t done, std::int64_t total, std::map<std::string, double> figures) {
    figures.merge(training_.slow_figures());
    if (!is_root()) return;
    const std::int64_t images = training_.images_after(done);
    const double elapsed = seconds_since(report_mark_);
    const double rate = elapsed > 0 ? static_cast<double>(images - report_images_) / elapsed : 0;
    smooth_rate_ = smooth_rate_ == 0 || rate == 0 ? rate : 0.7 * smooth_rate_ + 0.3 * rate;
    report_mark_ = Clock::now();
    report_images_ = images;
    report_to_coordinator(done, total, figures, rate);
    std::string line = training_.stage_of(done - 1) + " " + std::to_string(done) + "/" + std::to_string(total) + ", " +
                       std::to_string(images) + " images, " + std::to_string(static_cast<std::int64_t>(rate)) + " images/s";
    for (const auto& [key, value] : figures) {
      char text[64];
      std::snprintf(text, sizeof text, ", %s %.4g", key.c_str(), value);
      line += text;
    }
    log_info(line);
  }

  const RunContext& context_;
  const nlohmann::json& bit_config_;
  Training& training_;
  std::string checkpoints_;
  Checkpointer checkpointer_;
  CheckpointManifest manifest_;
  std::vector<CheckpointPiece> pieces_;  // of this rank's shard in flight
  std::optional<WrittenShard> written_;
  bool pending_ = false;
  std::int64_t last_saved_ = -1;
  Clock::time_point report_mark_;
  std::int64_t report_images_ = 0;
  double smooth_rate_ = 0;
};

}  // namespace

TrainingOutcome train(const RunContext& context, const nlohmann::json& bit_config, Training& training) {
  return Loop(context, bit_config, training).run();
}

MicroBatchRange micro_batch_range(std::int64_t micro_batches, int rank, int ranks) {
  const std::int64_t first = micro_batches * rank / ranks;
  return {first, micro_batches * (rank + 1) / ranks - first};
}

}  // namespace onestep
