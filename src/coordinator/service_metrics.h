// GET /metrics: what a Prometheus server collects of the coordinator. No label has values without bound: no job, path or host.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "coordinator/coordinator.h"

namespace onestep {

// What only its caller knows.
struct ConnectionCounts {
  int event_readers = 0;
};

// One thread.
class ServiceMetrics {
 public:
  ServiceMetrics();
  ~ServiceMetrics();
  ServiceMetrics(const ServiceMetrics&) = delete;
  ServiceMetrics& operator=(const ServiceMetrics&) = delete;

  // `route`: the route's pattern ("/api/v1/jobs/{id}"), "web" or "none".
  void count_request(const std::string& method, const std::string& route, int status, double seconds);
  void count_tick(double seconds);
  // Everything, in Prometheus's text format.
  std::string text(Coordinator& coordinator, const ConnectionCounts& connections);
  static constexpr const char* kContentType = "text/plain; version=0.0.4; charset=utf-8";

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace onestep
