// onestep-coordinator: command line, sockets, signals and the clock around a Coordinator.
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <CLI/CLI.hpp>

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/build_info.h"
#include "common/durable_file.h"
#include "common/error.h"
#include "common/log.h"
#include "common/private_ca.h"
#include "coordinator/api.h"
#include "coordinator/coordinator.h"
#include "coordinator/data_tools.h"
#include "coordinator/http_server.h"
#include "coordinator/launcher/make_launcher.h"
#include "coordinator/telemetry_listener.h"

namespace onestep {
namespace {

namespace asio = boost::asio;

constexpr std::chrono::milliseconds kTick{200};
constexpr std::chrono::seconds kStopWorkersLimit{60};  // to save and end, with --stop-workers
constexpr double kSameErrorAgain_s = 10;  // the same error of a tick is logged this often

struct Arguments {
  std::string data;
  std::string listen = "127.0.0.1:8080";
  int slots = 0;  // 0: as many as the launcher has room for
  LauncherChoice launcher;
  std::string telemetry;  // name of this host for ranks on other hosts; "": ranks are on this one
  bool stop_workers = false;
  bool resume_stopped = false;
  std::string log_format;  // "": as the environment says
  std::string tls;                 // folder with server.crt and server.key; "": none
  std::string auth;                // "none", "token"; "": none on a loopback address, else token
  std::int64_t queue = 10'000;     // jobs that have not ended
  std::vector<std::string> roots;  // folders that jobs may name files in, besides the data folder
};

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

bool needs_tokens(const Arguments& arguments) {
  if (!arguments.auth.empty()) return arguments.auth == "token";
  return !is_loopback_host(parse_listen_address(arguments.listen).host);
}

std::optional<TlsFiles> tls_files(const Arguments& arguments) {
  if (arguments.tls.empty()) return std::nullopt;
  return TlsFiles{arguments.tls + "/server.crt", arguments.tls + "/server.key"};
}

AccessRules access_rules(const Arguments& arguments) {
  const std::optional<TlsFiles> tls = tls_files(arguments);
  return {.tokens = needs_tokens(arguments),
          .tls = tls.has_value(),
          .hosts = tls ? certificate_names(tls->certificate) : std::vector<std::string>{}};
}

// Refuses before anything is bound or changed. A data folder that was never used has no tokens.
void check_doors(const Arguments& arguments) {
  const ListenAddress address = parse_listen_address(arguments.listen);
  const bool loopback = is_loopback_host(address.host);
  int num_tokens = 0;
  const std::string database = arguments.data + "/coordinator.sqlite";
  if (!loopback && Store::schema_version(database) > 0) {
    Store store(database);
    num_tokens = num_valid_tokens(store, unix_seconds());
  }
  require_locked_doors(to_string(address), loopback, !arguments.tls.empty(), needs_tokens(arguments), num_tokens);
}

// Whoever reaches a loopback listener without tokens is taken for this machine's one user: what that user works on, the
// folder where the coordinator was started and the home folder, is open to jobs. With tokens only what the operator lists.
FileRoots file_roots(const Arguments& arguments) {
  std::vector<std::string> folders = {arguments.data};
  folders.insert(folders.end(), arguments.roots.begin(), arguments.roots.end());
  if (arguments.roots.empty() && !needs_tokens(arguments)) {
    const char* home = std::getenv("HOME");
    for (const std::string& folder : {std::filesystem::current_path().string(), std::string(home != nullptr ? home : "")}) {
      if (folder.starts_with('/') && folder != "/") folders.push_back(folder);
    }
  }
  return FileRoots(folders);
}

// Ranks on other hosts trust the authority that the address file, on the shared folder, brings them.
std::string telemetry_authority(const Arguments& arguments) { return arguments.data + "/telemetry-tls/ca.crt"; }

std::optional<TelemetryDoor> telemetry_door(const Arguments& arguments) {
  if (arguments.telemetry.empty()) return std::nullopt;
  const std::string folder = arguments.data + "/telemetry-tls";
  write_private_ca({.folder = folder, .names = {arguments.telemetry}});
  return TelemetryDoor{arguments.telemetry, folder + "/server.crt", folder + "/server.key"};
}

int cores() { return static_cast<int>(std::max(1U, std::thread::hardware_concurrency())); }

// Launchers of other hosts count for themselves.
int num_slots(const Arguments& arguments) {
  if (arguments.slots > 0 || arguments.launcher.kind != "local") return arguments.slots;
  std::vector<std::string> devices;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/dev", ignored)) devices.push_back(entry.path().filename().string());
  return default_slots(cores(), std::getenv("CUDA_VISIBLE_DEVICES"), devices);
}

// Everything that runs, in the order in which it is made: sockets first, so that a port in use
// changes nothing on disk.
class Service {
 public:
  Service(asio::io_context& io, const Arguments& arguments)
      : io_(io),
        arguments_(arguments),
        http_(io, parse_listen_address(arguments.listen), {},
              [this](const HttpRequest& request) { return api_.handle(request); }, tls_files(arguments)),
        telemetry_(io, {},
                   {.hello = [this](const Hello& hello) { return coordinator_.hello(hello); },
                    .messages =
                        [this](const std::vector<ReceivedMessage>& messages) {
                          return coordinator_.on_messages(messages);
                        }},
                   telemetry_door(arguments)),
        coordinator_(
            {.data = arguments.data, .slots = num_slots(arguments), .clock = unix_seconds, .worker_tokens = true, .roots = file_roots(arguments)},
            make_launcher(arguments.launcher, cores())),
        api_(coordinator_, {.access = access_rules(arguments), .roots = file_roots(arguments), .queue = arguments.queue}),
        timer_(io),
        signals_(io, SIGINT, SIGTERM) {}

  void start() {
    coordinator_.set_sender(
        [this](const RankId& to, const Message& command) { telemetry_.send(to, command); });
    write_address();
    if (arguments_.resume_stopped) coordinator_.resume_stopped();
    telemetry_.start();
    http_.start();
    asio::co_spawn(io_, tick_until_stopped(), asio::detached);
    asio::co_spawn(io_, wait_for_signals(), asio::detached);
    std::cout << "onestep-coordinator listening on " << url() << ", data in " << arguments_.data << std::endl;
  }

 private:
  std::string url() const { return (arguments_.tls.empty() ? "http://" : "https://") + to_string(http_.address()); }

  // How workers and people find this coordinator; a restarted one rewrites it.
  void write_address() const {
    nlohmann::ordered_json address = {{"http", to_string(http_.address())},
                                            {"url", url()},
                                            {"telemetry", telemetry_.address()},
                                            {"pid", ::getpid()},
                                            {"started", static_cast<std::int64_t>(unix_seconds())}};
    if (!arguments_.telemetry.empty()) address["telemetry_authority"] = read_file(telemetry_authority(arguments_));
    write_file_durably(arguments_.data + "/coordinator.address", address.dump() + "\n");
  }

  asio::awaitable<void> tick_until_stopped() {
    while (!stopped_) {
      tick();
      timer_.expires_after(kTick);
      boost::system::error_code cancelled;
      co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
    }
  }

  void tick() {
    const auto start = std::chrono::steady_clock::now();
    try_again_later([this] { coordinator_.tick(); });
    try_again_later([this] { api_.publish_events(); });
    api_.count_tick(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }

  // A full disk or the like must not end the service: what could not be done is tried at the next tick.
  template <class Action>
  void try_again_later(Action action) {
    try {
      action();
    } catch (const std::exception& error) {
      if (error.what() == last_error_ && unix_seconds() - last_error_time_ < kSameErrorAgain_s)
        return;
      last_error_ = error.what();
      last_error_time_ = unix_seconds();
      log_error("tick: " + last_error_);
    }
  }

  asio::awaitable<void> wait_for_signals() {
    const int signal = co_await signals_.async_wait(asio::use_awaitable);
    signals_.clear();  // a second one ends the program at once
    log_info(std::string("stopping: ") + (signal == SIGINT ? "SIGINT" : "SIGTERM"));
    api_.set_stopping();
    http_.stop();
    if (arguments_.stop_workers) co_await stop_workers();
    stopped_ = true;
    timer_.cancel();
    telemetry_.stop();
    io_.stop();
  }

  asio::awaitable<void> stop_workers() {
    coordinator_.stop_all("the coordinator stops");
    const auto deadline = std::chrono::steady_clock::now() + kStopWorkersLimit;
    asio::steady_timer pause(io_);
    while (!coordinator_.idle()) {
      if (std::chrono::steady_clock::now() > deadline) {
        log_warning("attempts still run; they are adopted at the next start");
        co_return;
      }
      pause.expires_after(kTick);
      co_await pause.async_wait(asio::use_awaitable);
    }
  }

  asio::io_context& io_;
  const Arguments arguments_;
  HttpServer http_;
  TelemetryListener telemetry_;
  Coordinator coordinator_;
  Api api_;
  asio::steady_timer timer_;
  asio::signal_set signals_;
  bool stopped_ = false;
  std::string last_error_;
  double last_error_time_ = 0;
};

// Readers of events and ranks each hold a connection; the usual limit of 1,024 files is too low.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 16'384);
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) log_warning("the limit of open files could not be raised");
}

// Exit status when there is nothing to run: help, version, a wrong command line.
std::optional<int> parse_arguments(int argc, char** argv, Arguments& arguments) {
  CLI::App app(
      "Runs the Onestep service on this machine: REST for people, telemetry for workers, jobs with "
      "mpirun.");
  app.set_version_flag(
      "--version", std::string("onestep-coordinator ") + build_version() + " " + build_commit());
  app.set_config("--config", "", "TOML file with any of these options under their long names; the command line counts more")
      ->expected(1);
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.add_option("--data", arguments.data,
                 "folder with everything the service keeps; made if missing")
      ->required();
  app.add_option("--listen", arguments.listen,
                 "HOST:PORT for HTTP; port 0: any free one; an address that other machines reach needs --tls and tokens")
      ->capture_default_str();
  app.add_option("--slots", arguments.slots,
                 "ranks that run at a time; on this machine a job with more runs alone (default: one a GPU, without GPUs one a "
                 "core; those of the hostfile or of the allocation)")
      ->check(CLI::Range(1, 65536));
  app.add_option("--launcher", arguments.launcher.kind, "how attempts are started: mpirun here, mpirun on the hosts of --hostfile, "
                 "steps of the Slurm allocation that this program runs in, or Slurm jobs of their own")
      ->check(CLI::IsMember({"local", "hostfile", "slurm-step", "slurm-batch"}))
      ->capture_default_str();
  app.add_option("--hostfile", arguments.launcher.hostfile, "hosts and their slots, as Open MPI reads them");
  app.add_option("--slurm", arguments.launcher.slurm, "KEY=VALUE, an option for srun or sbatch such as partition=gpu; may be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--telemetry", arguments.telemetry,
                 "name or address of this host by which ranks on other hosts reach it: their reports then come over TLS to any of its "
                 "addresses (default: to 127.0.0.1 alone)");
  app.add_option("--ranks-per-node", arguments.launcher.ranks_per_node,
                 "with Slurm, ranks a node has room for, such as its GPUs (default: the allocation's tasks a node)")
      ->check(CLI::Range(1, 4096));
  app.add_option("--log-format", arguments.log_format, "text or json, of this program and of the workers it launches")
      ->check(CLI::IsMember({"text", "json"}));
  app.add_option("--tls", arguments.tls, "folder with server.crt and server.key, as 'onestep init-tls' makes it");
  app.add_option("--auth", arguments.auth, "none, or token: every call needs one (default: none on a loopback address, else token)")
      ->check(CLI::IsMember({"none", "token"}));
  app.add_option("--root", arguments.roots,
                 "folder that jobs may name files in, besides --data; may be repeated (default without tokens: the current "
                 "and the home folder)");
  app.add_option("--queue", arguments.queue, "jobs that may be waiting or running; beyond them nothing is taken (429)")
      ->check(CLI::Range(1, 10'000'000))
      ->capture_default_str();
  app.add_flag("--stop-workers", arguments.stop_workers,
               "on SIGTERM or SIGINT let running attempts save and end (without it they go on, and "
               "are adopted at the "
               "next start)");
  app.add_flag("--resume-stopped", arguments.resume_stopped,
               "at the start go on with the jobs that were stopped, as --stop-workers stops them; cancelled ones stay so");
  app.footer(
      "Example: onestep-coordinator --data ./onestep-data --listen 127.0.0.1:8080\n"
      "Exit status: 0 stopped by a signal, 2 wrong command line, 5 system error such as a full "
      "disk, "
      "6 port in use, 8 the data folder has another coordinator.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int status = app.exit(error);
    return status == 0 ? 0 : exit_status(ErrorCode::kUsage);
  }
  arguments.data = std::filesystem::absolute(arguments.data).lexically_normal().string();
  if (arguments.data.size() > 1 && arguments.data.ends_with('/')) arguments.data.pop_back();
  if (!arguments.launcher.hostfile.empty()) {
    arguments.launcher.hostfile = std::filesystem::absolute(arguments.launcher.hostfile).lexically_normal().string();
  }
  for (std::string& root : arguments.roots) root = std::filesystem::absolute(root).lexically_normal().string();
  return std::nullopt;
}

// A request's memory is kept for the next one: given back to the system, it would be asked for again a thousand times a second.
void keep_freed_memory() { ::mallopt(M_TRIM_THRESHOLD, 32 << 20); }

int run(int argc, char** argv) {
  if (is_data_tool(argc, argv)) return run_data_tool(argc, argv);
  Arguments arguments;
  if (const std::optional<int> status = parse_arguments(argc, argv, arguments)) return *status;
  if (!arguments.log_format.empty()) set_log_format(arguments.log_format);
  set_log_context("coordinator");
  std::signal(SIGPIPE, SIG_IGN);
  raise_descriptor_limit();
  keep_freed_memory();
  check_doors(arguments);
  asio::io_context io(1);
  Service service(io, arguments);
  service.start();
  io.run();
  return 0;
}

}  // namespace
}  // namespace onestep

int main(int argc, char** argv) {
  try {
    return onestep::run(argc, argv);
  } catch (const onestep::Error& error) {
    std::cerr << "onestep-coordinator: " << error.what() << "\n";
    return onestep::exit_status(error.code());
  } catch (const std::exception& error) {
    std::cerr << "onestep-coordinator: " << error.what() << "\n";
    return onestep::exit_status(onestep::ErrorCode::kInternal);
  }
}
