#include "coordinator/service_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "common/build_info.h"
#include "coordinator/rank_watchdog.h"
#include "coordinator/training_health.h"

namespace onestep {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Histogram;

const Histogram::BucketBoundaries kSeconds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};

// Whatever a client invents counts as one.
std::string known_method(const std::string& method) {
  const bool known = method == "GET" || method == "HEAD" || method == "POST";
  return known ? method : "other";
}

double resident_bytes() {
  std::ifstream file("/proc/self/statm");
  double size = 0, resident = 0;
  file >> size >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

double open_descriptors() {
  std::error_code error;
  const std::filesystem::directory_iterator entries("/proc/self/fd", error);
  return error ? 0 : static_cast<double>(std::distance(begin(entries), end(entries)));
}

}  // namespace

struct ServiceMetrics::Families {
  prometheus::Registry registry;
  prometheus::Family<prometheus::Gauge>& build =
      BuildGauge().Name("onestep_build_info").Help("Version and commit; always 1.").Register(registry);
  prometheus::Family<prometheus::Gauge>& jobs = BuildGauge().Name("onestep_jobs").Help("Jobs by state.").Register(registry);
  prometheus::Family<prometheus::Gauge>& slots = BuildGauge().Name("onestep_slots").Help("Ranks that may run at a time.").Register(registry);
  prometheus::Family<prometheus::Gauge>& ranks =
      BuildGauge().Name("onestep_ranks").Help("Ranks of running attempts: those that said hello, and those of them in trouble.").Register(registry);
  prometheus::Family<prometheus::Gauge>& alarms =
      BuildGauge().Name("onestep_alarms").Help("Alarms that hold, by code.").Register(registry);
  prometheus::Family<prometheus::Counter>& alarms_raised =
      BuildCounter().Name("onestep_alarms_raised_total").Help("Alarms ever raised in this data folder, by code.").Register(registry);
  prometheus::Family<prometheus::Counter>& attempts =
      BuildCounter().Name("onestep_attempts_total").Help("Attempts started in this data folder.").Register(registry);
  prometheus::Family<prometheus::Counter>& checkpoints =
      BuildCounter().Name("onestep_checkpoints_total").Help("Checkpoints committed in this data folder.").Register(registry);
  prometheus::Family<prometheus::Counter>& images =
      BuildCounter().Name("onestep_images_total").Help("Images that jobs reported since this process started.").Register(registry);
  prometheus::Family<prometheus::Gauge>& speed =
      BuildGauge().Name("onestep_images_per_second").Help("Of all running jobs together, as last reported.").Register(registry);
  prometheus::Family<prometheus::Gauge>& events =
      BuildGauge().Name("onestep_last_event_id").Help("Number of the newest event.").Register(registry);
  prometheus::Family<prometheus::Gauge>& readers =
      BuildGauge().Name("onestep_event_readers").Help("Open streams of events.").Register(registry);
  prometheus::Family<prometheus::Gauge>& database =
      BuildGauge().Name("onestep_database_bytes").Help("The database with its write-ahead log.").Register(registry);
  prometheus::Family<prometheus::Counter>& messages =
      BuildCounter().Name("onestep_telemetry_messages_total").Help("Messages of ranks: taken, or refused.").Register(registry);
  prometheus::Family<prometheus::Counter>& requests =
      BuildCounter().Name("onestep_http_requests_total").Help("HTTP requests by method, route and status.").Register(registry);
  prometheus::Family<Histogram>& request_seconds =
      BuildHistogram().Name("onestep_http_request_seconds").Help("Time to make an answer, by route.").Register(registry);
  prometheus::Family<Histogram>& tick_seconds =
      BuildHistogram().Name("onestep_tick_seconds").Help("Time of a tick: jobs looked after, figures written, events told.").Register(registry);
  prometheus::Family<prometheus::Gauge>& resident =
      BuildGauge().Name("process_resident_memory_bytes").Help("Resident memory size in bytes.").Register(registry);
  prometheus::Family<prometheus::Gauge>& descriptors =
      BuildGauge().Name("process_open_fds").Help("Number of open file descriptors.").Register(registry);
  Histogram& ticks = tick_seconds.Add({}, kSeconds);
};

namespace {

// Counters that the database or the coordinator keeps are brought up to what they are.
void bring_to(prometheus::Counter& counter, double value) {
  if (value > counter.Value()) counter.Increment(value - counter.Value());
}

}  // namespace

ServiceMetrics::ServiceMetrics() : families_(std::make_unique<Families>()) {
  families_->build.Add({{"version", build_version()}, {"commit", build_commit()}}).Set(1);
}

ServiceMetrics::~ServiceMetrics() = default;

void ServiceMetrics::count_request(const std::string& method, const std::string& route, int status, double seconds) {
  families_->requests.Add({{"method", known_method(method)}, {"route", route}, {"status", std::to_string(status)}}).Increment();
  families_->request_seconds.Add({{"route", route}}, kSeconds).Observe(seconds);
}

void ServiceMetrics::count_tick(double seconds) { families_->ticks.Observe(seconds); }

std::string ServiceMetrics::text(Coordinator& coordinator, const ConnectionCounts& connections) {
  Families& all = *families_;
  const ServiceFigures figures = coordinator.figures();
  for (const JobState state : all_job_states()) {
    const auto found = figures.jobs.find(to_string(state));
    all.jobs.Add({{"state", to_string(state)}}).Set(found == figures.jobs.end() ? 0 : static_cast<double>(found->second));
  }
  std::map<std::string, AlarmCount> counts;
  for (const AlarmCount& count : coordinator.alarm_counts()) counts[count.code] = count;
  for (const std::vector<std::string>& codes : {training_alarm_codes(), rank_alarm_codes()}) {
    for (const std::string& code : codes) {
      all.alarms.Add({{"code", code}}).Set(static_cast<double>(counts[code].holding));
      bring_to(all.alarms_raised.Add({{"code", code}}), static_cast<double>(counts[code].raised));
    }
  }
  all.slots.Add({}).Set(figures.slots);
  all.ranks.Add({{"state", "connected"}}).Set(figures.ranks);
  all.ranks.Add({{"state", "in_trouble"}}).Set(figures.ranks_in_trouble);
  bring_to(all.attempts.Add({}), static_cast<double>(figures.attempts));
  bring_to(all.checkpoints.Add({}), static_cast<double>(figures.checkpoints));
  bring_to(all.images.Add({}), figures.images);
  all.speed.Add({}).Set(figures.images_per_second);
  all.events.Add({}).Set(static_cast<double>(coordinator.last_event()));
  all.readers.Add({}).Set(connections.event_readers);
  all.database.Add({}).Set(static_cast<double>(figures.database_bytes));
  bring_to(all.messages.Add({{"result", "taken"}}), static_cast<double>(figures.messages_taken));
  bring_to(all.messages.Add({{"result", "refused"}}), static_cast<double>(figures.messages_refused));
  all.resident.Add({}).Set(resident_bytes());
  all.descriptors.Add({}).Set(open_descriptors());
  return prometheus::TextSerializer().Serialize(all.registry.Collect());
}

}  // namespace onestep
