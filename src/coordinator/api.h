// REST under /api/v1, and /metrics, /healthz and /readyz: from a request to a response, without a socket.
// docs/rest.md is the reference.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/access.h"
#include "coordinator/beneath.h"
#include "coordinator/contract.h"
#include "coordinator/coordinator.h"
#include "coordinator/event_hub.h"
#include "coordinator/http_message.h"
#include "coordinator/service_metrics.h"

namespace onestep {

struct ApiOptions {
  AccessRules access = {};
  FileRoots roots = FileRoots({"/"});  // what a spec may name files in
  std::int64_t queue = 10'000;         // jobs that have not ended; beyond them nothing is taken
};

class Api {
 public:
  explicit Api(Coordinator& coordinator, ApiOptions options = {})
      : coordinator_(coordinator), options_(std::move(options)), events_(coordinator) {}

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
  static const std::map<std::string, Handler>& handlers();  // by operation id
  // `route` becomes what the request met: an operation's path, "web", or stays.
  HttpResponse answer(const HttpRequest& request, std::string& route);
  HttpResponse dispatch(const HttpRequest& request, std::string& route);
  HttpResponse run(const Operation& operation, const HttpRequest& request, const Caller& caller,
                   const std::vector<std::string>& segments);
  [[nodiscard]] Pipeline parse_submission(const nlohmann::json& body) const;

  HttpResponse submit(Call& call);
  HttpResponse list_jobs(Call& call);
  HttpResponse show_job(Call& call);
  HttpResponse show_spec(Call& call);
  HttpResponse show_logs(Call& call);
  HttpResponse show_metrics(Call& call);
  HttpResponse list_checkpoints(Call& call);
  HttpResponse show_checkpoint(Call& call);
  HttpResponse download_checkpoint_file(Call& call);
  HttpResponse show_export(Call& call);
  HttpResponse download_export_file(Call& call);
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
  HttpResponse list_pipelines(Call& call);
  HttpResponse show_pipeline(Call& call);
  HttpResponse tensorboard(Call& call);
  HttpResponse service_metrics(Call& call);
  HttpResponse list_tokens(Call& call);
  HttpResponse add_token(Call& call);
  HttpResponse revoke_token(Call& call);
  HttpResponse openapi(Call& call);
  HttpResponse health(Call& call);
  HttpResponse ready(Call& call);

  Coordinator& coordinator_;
  const ApiOptions options_;
  EventHub events_;
  ServiceMetrics metrics_;
  bool stopping_ = false;
};

}  // namespace onestep
