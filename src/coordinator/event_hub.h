// Server-sent events: replays what a reader has missed from the database and the log, then hands
// every reader the same text of each new event.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "coordinator/body_stream.h"
#include "coordinator/coordinator.h"
#include "coordinator/event_cursor.h"

namespace onestep {

// What a reader wants to hear of: a job, a pipeline, or with both empty everything. Real ids.
struct EventScope {
  std::string job;
  std::string pipeline;
  auto operator<=>(const EventScope&) const = default;
};

struct EventLimits {
  int readers = 2048;
  std::size_t queued_bytes = 1 << 20;  // unsent text of a reader; more drops it
  std::int64_t batch = 256;            // events read at a time in a replay
  std::int64_t log_bytes = 64 * 1024;  // of a log in one event
};

// "state", "metric", "checkpoint", "alarm": stored, replayed. "log": of rank 0, of one job's stream
// alone, replayed from the file. "progress": the newest figures, without an id, may be lost.
const std::vector<std::string>& event_types();

// A stream has every stored event of its scope exactly once, in their order, and every byte of the
// log exactly once, in its order; what was written to the log before a state was decided comes
// before that state. One thread: the coordinator's.
class EventHub {
 public:
  explicit EventHub(Coordinator& coordinator, EventLimits limits = {});
  EventHub(const EventHub&) = delete;
  EventHub& operator=(const EventHub&) = delete;

  // A reader that has seen everything up to `after`; types empty: all. It may outlive the hub, but
  // then next() must not be called any more.
  // Errors: kUnavailable with too many readers; kConflict when `after` lies in the future: it is of
  // another data folder.
  std::shared_ptr<BodyStream> subscribe(const EventScope& scope, const EventCursor& after,
                                        const std::set<std::string>& types);
  // Hands out what is new. To be called after every tick.
  void publish();
  [[nodiscard]] int num_readers() const;

 private:
  class Reader;
  struct Channel;
  struct Piece {
    std::string type;
    std::shared_ptr<const std::string> text;  // as it is sent; one for all readers
    std::int64_t number = 0;                  // of a stored event; 0: it has none
  };

  // Stored events after `cursor`, up to `until`; moves the cursor.
  std::vector<Piece> read_stored(const EventScope& scope, EventCursor& cursor, std::int64_t until,
                                 const std::set<std::string>& types);
  // The next of the log after `cursor`, not beyond `until` if there is one; moves the cursor.
  std::vector<Piece> read_log(const JobRecord& job, EventCursor& cursor, const LogPosition* until);
  std::string log_piece(const JobRecord& job, LogPosition& position, const LogPosition* until);
  // The end of the last whole line of the newest attempt.
  LogPosition log_end(const JobRecord& job);
  std::vector<Piece> read_progress(const EventScope& scope, std::uint64_t& version);
  void publish(Channel& channel, std::int64_t last);

  Coordinator& coordinator_;
  const EventLimits limits_;
  std::map<EventScope, std::shared_ptr<Channel>> channels_;
};

}  // namespace onestep
