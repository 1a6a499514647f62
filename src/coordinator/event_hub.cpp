#include "coordinator/event_hub.h"

#include <algorithm>
#include <deque>
#include <filesystem>
#include <utility>

#include "common/log.h"
#include "common/run_folder.h"
#include "coordinator/beneath.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr std::size_t kSentAtATime = 64 * 1024;

std::string quoted(const std::string& text) {
  return json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

// `body` is an object in one line; what every event has stands first in it.
std::string sse_text(const std::string& id, const std::string& type, const std::string& fields,
                     const std::string& body) {
  std::string inner = body.size() > 2 ? body : "}";
  if (body.size() > 2) inner.front() = ',';
  return (id.empty() ? "" : "id: " + id + "\n") + "event: " + type + "\ndata: {" + fields + inner +
         "\n\n";
}

bool wants(const std::set<std::string>& types, const std::string& type) {
  return types.empty() || types.contains(type);
}

// A run folder may be where others write: what stands there in the log's place must not stop everybody's events.
std::string read_log_file(const std::string& run, int attempt, std::int64_t offset, std::int64_t limit) {
  try {
    return read_beneath(run, log_file(run, attempt, 0).substr(run.size() + 1), offset, limit);
  } catch (const Error& error) {
    log_warning(std::string("events: a log can't be read: ") + error.what());
    return "";
  }
}

}  // namespace

const std::vector<std::string>& event_types() {
  static const std::vector<std::string> types = {"state", "metric", "checkpoint",
                                                 "alarm", "log",    "progress"};
  return types;
}

// All readers of one scope; those that have caught up stand at `head`.
struct EventHub::Channel {
  EventScope scope;
  EventCursor head;
  std::uint64_t progress_version = 0;
  std::vector<Reader*> readers;
  [[nodiscard]] bool follows_log() const;
};

class EventHub::Reader : public BodyStream {
 public:
  Reader(EventHub& hub, std::shared_ptr<Channel> channel, EventCursor after,
         std::set<std::string> types)
      : hub_(hub), channel_(std::move(channel)), cursor_(after), types_(std::move(types)) {
    channel_->readers.push_back(this);
  }
  ~Reader() override { std::erase(channel_->readers, this); }

  std::optional<std::string> next() override {
    if (dropped_) return std::nullopt;
    if (!std::exchange(greeted_, true)) return "retry: 1000\n\n";
    if (!live_) {
      std::string missed = replay();
      if (!missed.empty()) return missed;
      live_ = true;
      std::uint64_t version = 0;  // the newest figures of each job, once
      for (const Piece& piece : hub_.read_progress(channel_->scope, version)) push(piece);
    }
    std::string text;
    while (!queue_.empty() && text.size() < kSentAtATime) {
      text += *queue_.front();
      queued_bytes_ -= queue_.front()->size();
      queue_.pop_front();
    }
    return text;
  }
  void on_ready(std::function<void()> wake) override { wake_ = std::move(wake); }

  // From the channel. What is new before the reader has caught up is read in the replay.
  void hand(const std::vector<Piece>& pieces) {
    if (!live_) return;
    for (const Piece& piece : pieces) push(piece);
    if (wake_) wake_();
  }
  [[nodiscard]] bool follows_log() const {
    return !channel_->scope.job.empty() && wants(types_, "log");
  }

 private:
  void push(const Piece& piece) {
    if (dropped_ || !wants(types_, piece.type)) return;
    // Seen before it came here: in an answer that was made before the channel was told of the event.
    if (piece.number != 0 && piece.number <= cursor_.number) return;
    if (queued_bytes_ + piece.text->size() > hub_.limits_.queued_bytes) {
      dropped_ = true;  // it connects again and goes on where it was
      queue_.clear();
      return;
    }
    queued_bytes_ += piece.text->size();
    queue_.push_back(piece.text);
  }

  std::string replay() {
    std::vector<Piece> pieces;
    if (follows_log() && cursor_.log < channel_->head.log) {
      const JobRecord job = hub_.coordinator_.job(channel_->scope.job);
      pieces = hub_.read_log(job, cursor_, &channel_->head.log);
    }
    if (pieces.empty() && cursor_.number < channel_->head.number) {
      pieces = hub_.read_stored(channel_->scope, cursor_, channel_->head.number, types_);
    }
    std::string text;
    for (const Piece& piece : pieces) text += *piece.text;
    return text;
  }

  EventHub& hub_;
  std::shared_ptr<Channel> channel_;
  EventCursor cursor_;  // as far as it had read when it had caught up
  const std::set<std::string> types_;
  bool greeted_ = false;
  bool live_ = false;
  bool dropped_ = false;
  std::deque<std::shared_ptr<const std::string>> queue_;
  std::size_t queued_bytes_ = 0;
  std::function<void()> wake_;
};

bool EventHub::Channel::follows_log() const {
  return std::any_of(readers.begin(), readers.end(),
                     [](const Reader* reader) { return reader->follows_log(); });
}

EventHub::EventHub(Coordinator& coordinator, EventLimits limits)
    : coordinator_(coordinator), limits_(limits) {}

int EventHub::num_readers() const {
  std::size_t sum = 0;
  for (const auto& [scope, channel] : channels_) sum += channel->readers.size();
  return static_cast<int>(sum);
}

std::shared_ptr<BodyStream> EventHub::subscribe(const EventScope& scope, const EventCursor& after,
                                                const std::set<std::string>& types) {
  if (num_readers() >= limits_.readers) {
    throw Error(ErrorCode::kUnavailable,
                "too many readers of events: limit " + std::to_string(limits_.readers));
  }
  const std::int64_t last = coordinator_.last_event();
  if (after.number > last) {
    throw Error(ErrorCode::kConflict, "Last-Event-ID: expected at most " + std::to_string(last) +
                                          ", found " + to_string(after) +
                                          "; is it of another coordinator's data folder?");
  }
  std::shared_ptr<Channel>& channel = channels_[scope];
  if (!channel) {
    channel = std::make_shared<Channel>();
    channel->scope = scope;
  }
  // Nobody was told meanwhile, so nothing is left out by going on from here.
  if (channel->readers.empty()) channel->head.number = last;
  const bool followed = channel->follows_log();
  auto reader = std::make_shared<Reader>(*this, channel, after, types);
  if (!followed && reader->follows_log()) {
    channel->head.log = log_end(coordinator_.job(scope.job));
  }
  return reader;
}

void EventHub::publish() {
  std::erase_if(channels_, [](const auto& entry) { return entry.second->readers.empty(); });
  if (channels_.empty()) return;
  const std::int64_t last = coordinator_.last_event();
  for (const auto& [scope, channel] : channels_) publish(*channel, last);
}

void EventHub::publish(Channel& channel, std::int64_t last) {
  std::vector<Piece> pieces;
  if (channel.follows_log()) {
    // Read after `last` was: an ended attempt's log is whole by the time its end is told.
    const JobRecord job = coordinator_.job(channel.scope.job);
    for (bool more = true; more;) {
      const std::vector<Piece> read = read_log(job, channel.head, nullptr);
      pieces.insert(pieces.end(), read.begin(), read.end());
      more = !read.empty();
    }
  }
  for (bool more = channel.head.number < last; more;) {
    const std::vector<Piece> read = read_stored(channel.scope, channel.head, last, {});
    pieces.insert(pieces.end(), read.begin(), read.end());
    more = !read.empty();
  }
  const std::vector<Piece> progress = read_progress(channel.scope, channel.progress_version);
  pieces.insert(pieces.end(), progress.begin(), progress.end());
  if (pieces.empty()) return;
  for (Reader* reader : channel.readers) reader->hand(pieces);
}

std::vector<EventHub::Piece> EventHub::read_stored(const EventScope& scope, EventCursor& cursor,
                                                   std::int64_t until,
                                                   const std::set<std::string>& types) {
  const std::vector<EventRecord> events =
      coordinator_.events({.job = scope.job,
                           .pipeline = scope.pipeline,
                           .after = cursor.number,
                           .until = until,
                           .types = {types.begin(), types.end()},
                           .limit = limits_.batch});
  std::vector<Piece> pieces;
  for (const EventRecord& event : events) {
    cursor.number = event.number;
    const std::string fields =
        "\"job\":" + quoted(event.job) + ",\"time\":" + json(event.time).dump();
    pieces.push_back({event.type, std::make_shared<const std::string>(sse_text(to_string(cursor), event.type, fields, event.body)),
                      event.number});
  }
  if (pieces.empty()) cursor.number = until;
  return pieces;
}

std::vector<EventHub::Piece> EventHub::read_log(const JobRecord& job, EventCursor& cursor,
                                                const LogPosition* until) {
  const std::string text = log_piece(job, cursor.log, until);
  if (text.empty()) return {};
  const auto size = static_cast<std::int64_t>(text.size());
  const nlohmann::ordered_json body = {{"attempt", cursor.log.attempt},
                                       {"rank", 0},
                                       {"offset", cursor.log.offset - size},
                                       {"text", text}};
  const std::string line =
      body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  return {{"log", std::make_shared<const std::string>(sse_text(
                      to_string(cursor), "log", "\"job\":" + quoted(job.id), line))}};
}

std::string EventHub::log_piece(const JobRecord& job, LogPosition& position,
                                const LogPosition* until) {
  const std::string run = coordinator_.run_folder(job.id);
  if (position.attempt == 0 && job.attempts > 0) position = {1, 0};
  while (position.attempt > 0 && (until == nullptr || position < *until)) {
    const bool last_stretch = until != nullptr && position.attempt == until->attempt;
    const std::int64_t limit = last_stretch
                                   ? std::min(limits_.log_bytes, until->offset - position.offset)
                                   : limits_.log_bytes;
    std::string text = read_log_file(run, position.attempt, position.offset, limit);
    const bool full = static_cast<std::int64_t>(text.size()) == limit;
    const bool over = position.attempt < job.attempts || !is_active(job.state);
    // A line that is being written is sent when it is whole; one that is too long, in parts.
    const std::size_t line_end = text.rfind('\n');
    if (full && line_end != std::string::npos) text.resize(line_end + 1);
    if (!full && !over) text.resize(line_end == std::string::npos ? 0 : line_end + 1);
    position.offset += static_cast<std::int64_t>(text.size());
    if (!text.empty()) return text;
    if (position.attempt >= job.attempts) return "";
    position = {position.attempt + 1, 0};
  }
  return "";
}

LogPosition EventHub::log_end(const JobRecord& job) {
  if (job.attempts == 0) return {};
  const std::string run = coordinator_.run_folder(job.id);
  const std::string path = log_file(run, job.attempts, 0);
  std::error_code missing;
  const auto size = static_cast<std::int64_t>(std::filesystem::file_size(path, missing));
  if (missing) return {job.attempts, 0};
  if (!is_active(job.state)) return {job.attempts, size};
  const std::int64_t first = std::max<std::int64_t>(0, size - limits_.log_bytes);
  const std::size_t line_end = read_log_file(run, job.attempts, first, size - first).rfind('\n');
  if (line_end == std::string::npos) return {job.attempts, first};
  return {job.attempts, first + static_cast<std::int64_t>(line_end) + 1};
}

std::vector<EventHub::Piece> EventHub::read_progress(const EventScope& scope,
                                                     std::uint64_t& version) {
  std::vector<Piece> pieces;
  for (const LiveProgress& progress : coordinator_.progress_since(version)) {
    version = progress.version;
    if (!scope.job.empty() && progress.job != scope.job) continue;
    if (!scope.pipeline.empty() && progress.pipeline != scope.pipeline) continue;
    pieces.push_back({"progress", std::make_shared<const std::string>(
                                      sse_text("", "progress", "\"job\":" + quoted(progress.job),
                                               progress.body.dump()))});
  }
  return pieces;
}

}  // namespace onestep
