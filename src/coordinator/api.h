// REST under /api/v1, and /metrics, /healthz and /readyz: from a request to a response, without a socket.
// docs/rest.md is the reference.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "coordinator/coordinator.h"
#include "coordinator/event_hub.h"
#include "coordinator/http_message.h"
#include "coordinator/service_metrics.h"

namespace onestep {

class Api {
 public:
  explicit Api(Coordinator& coordinator) : coordinator_(coordinator), events_(coordinator) {}

  // Everything that is wrong with a request is a problem document, never an exception; HEAD is
  // answered as GET. One thread: the coordinator's.
  HttpResponse handle(const HttpRequest& request);

  // Tells the readers of event streams what is new; after every tick.
  void publish_events() { events_.publish(); }

  // How long a tick took, for /metrics.
  void count_tick(double seconds) { metrics_.count_tick(seconds); }

  // From now on /readyz answers 503.
  void set_stopping() { stopping_ = true; }

 private:
  struct Call;
  using Handler = HttpResponse (Api::*)(Call& call);
  struct Route {
    const char* method;
    const char* path;  // "{id}" stands for one segment
    Handler handler;
  };
  static const std::vector<Route>& routes();
  // `route` becomes what the request met: a route's path, "web", or stays.
  HttpResponse answer(const HttpRequest& request, std::string& route);
  HttpResponse dispatch(const HttpRequest& request, std::string& route);

  HttpResponse submit(Call& call);
  HttpResponse list_jobs(Call& call);
  HttpResponse show_job(Call& call);
  HttpResponse show_spec(Call& call);
  HttpResponse show_logs(Call& call);
  HttpResponse show_metrics(Call& call);
  HttpResponse list_checkpoints(Call& call);
  HttpResponse list_shards(Call& call);
  HttpResponse list_job_workers(Call& call);
  HttpResponse list_samples(Call& call);
  HttpResponse show_sample(Call& call);
  HttpResponse events(Call& call, const EventScope& scope);
  HttpResponse job_events(Call& call);
  HttpResponse pipeline_events(Call& call);
  HttpResponse all_events(Call& call);
  HttpResponse cancel(Call& call);
  HttpResponse resume(Call& call);
  HttpResponse checkpoint_now(Call& call);
  HttpResponse show_pipeline(Call& call);
  HttpResponse tensorboard(Call& call);
  HttpResponse service_metrics(Call& call);
  HttpResponse health(Call& call);
  HttpResponse ready(Call& call);

  Coordinator& coordinator_;
  EventHub events_;
  ServiceMetrics metrics_;
  bool stopping_ = false;
};

}  // namespace onestep
