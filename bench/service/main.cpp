// onestep-bench-service: fills a data folder, and loads a coordinator that serves it. service.py runs it.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "common/durable_file.h"
#include "run_main.h"
#include "service/fill.h"
#include "service/http_load.h"
#include "service/rank_load.h"

namespace onestep {
namespace {

void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

int bench_main(int argc, char** argv) {
  CLI::App app("Loads a coordinator; every command ends with one JSON line.", "onestep-bench-service");
  app.require_subcommand(1);

  FillOptions filled;
  CLI::App* fill_command = app.add_subcommand("fill", "a data folder with many jobs and points");
  fill_command->add_option("--data", filled.data)->required();
  fill_command->add_option("--jobs", filled.jobs);
  fill_command->add_option("--points", filled.points);
  fill_command->add_option("--curve", filled.curve);
  fill_command->add_option("--ranks", filled.ranks);
  fill_command->add_option("--pid", filled.pid)->required();

  std::size_t hello_bytes = 1024;
  CLI::App* hello_command = app.add_subcommand("hello", "the plainest server");
  hello_command->add_option("--bytes", hello_bytes);

  std::string server, folder, body_file, target, after = "0";
  std::vector<std::string> targets;
  double rate = 500, seconds = 10;
  int connections = 50, count = 200, readers = 1000;
  CLI::App* requests_command = app.add_subcommand("requests", "at a fixed rate");
  requests_command->add_option("--server", server)->required();
  requests_command->add_option("--target", targets)->required();
  requests_command->add_option("--rate", rate);
  requests_command->add_option("--seconds", seconds);
  requests_command->add_option("--connections", connections);

  CLI::App* submits_command = app.add_subcommand("submits", "one after the other, beside a plain write and fsync");
  submits_command->add_option("--server", server)->required();
  submits_command->add_option("--target", target)->required();
  submits_command->add_option("--body", body_file)->required();
  submits_command->add_option("--count", count);
  submits_command->add_option("--folder", folder, "for the files; on the disk of the data folder")->required();

  CLI::App* events_command = app.add_subcommand("events", "readers of one stream");
  events_command->add_option("--server", server)->required();
  events_command->add_option("--target", target)->required();
  events_command->add_option("--after", after, "the id of an event");
  events_command->add_option("--readers", readers);
  events_command->add_option("--seconds", seconds);

  RankLoad ranks;
  CLI::App* ranks_command = app.add_subcommand("ranks", "of the running job");
  ranks_command->add_option("--telemetry", ranks.telemetry)->required();
  ranks_command->add_option("--ranks", ranks.ranks);
  ranks_command->add_option("--rate", ranks.messages_per_second);
  ranks_command->add_option("--seconds", ranks.seconds);
  ranks_command->add_option("--fact-every", ranks.fact_every);
  ranks_command->add_option("--first-shard", ranks.first_shard);
  ranks_command->add_option("--first-iteration", ranks.first_iteration);
  CLI11_PARSE(app, argc, argv);

  raise_descriptor_limit();
  nlohmann::json result = nlohmann::json::object();
  if (fill_command->parsed()) {
    fill(filled);
  } else if (hello_command->parsed()) {
    serve_hello(hello_bytes);
  } else if (requests_command->parsed()) {
    result = load_requests(server_of(server), targets, rate, seconds, connections);
  } else if (submits_command->parsed()) {
    result = load_submits(server_of(server), target, read_file(body_file), count, folder);
  } else if (events_command->parsed()) {
    result = read_events(server_of(server), target, after, readers, seconds);
  } else if (ranks_command->parsed()) {
    ranks.job = kRunningJob;
    result = load_ranks(ranks);
  }
  std::cout << result.dump() << std::endl;
  return 0;
}

}  // namespace
}  // namespace onestep

int main(int argc, char** argv) { return onestep::run_main("onestep-bench-service", onestep::bench_main, argc, argv); }
