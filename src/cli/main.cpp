// onestep: the command line. Parses it, runs one command, turns errors into exit codes.
#include <CLI/CLI.hpp>

#include <cstdlib>
#include <functional>
#include <iostream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/client.h"
#include "cli/doctor.h"
#include "cli/evaluate.h"
#include "cli/inspect.h"
#include "cli/job_commands.h"
#include "cli/local_service.h"
#include "cli/manual.h"
#include "cli/pack_dataset.h"
#include "cli/plan.h"
#include "cli/report.h"
#include "cli/sample.h"
#include "cli/submit.h"
#include "cli/token_commands.h"
#include "cli/verify.h"
#include "common/build_info.h"
#include "common/error.h"
#include "common/nearest.h"
#include "common/private_ca.h"
#include "common/secret.h"

namespace onestep {
namespace {

constexpr const char* kExitCodes =
    "Exit codes: 0 done; 1 a bug; 2 wrong command line; 3 wrong configuration; 4 a file or job is\n"
    "missing, damaged or does not fit; 5 the operating system refused (full disk, permission);\n"
    "6 nobody answers, or a port is in use; 7 a followed job did not succeed; 8 not possible in\n"
    "this state, or not allowed; 9 stopped on request, can be resumed; 130 stopped watching by\n"
    "Ctrl-C, the jobs go on.\n\n"
    "Examples:\n"
    "  onestep up\n"
    "  onestep submit configs/digits/pipeline.json --follow\n"
    "  onestep sample --model exports/digits --count 64 --out grid.png\n";
constexpr const char* kDefaultUrl = "http://127.0.0.1:8080";

// What every command shares: where its options land, and what to run when it was the one chosen.
struct CommandLine {
  CLI::App app{"Onestep: turns a diffusion model into a one-step generator", "onestep"};
  std::string url;   // before or after the subcommand; "": ONESTEP_URL or the default
  std::string ca;    // "": ONESTEP_CA, else the system's
  std::string token_file;  // "": ONESTEP_TOKEN_FILE, else ONESTEP_TOKEN, else none
  bool json = false;
  std::function<int()> run;

  CommandLine() {
    app.require_subcommand(1);
    app.footer(kExitCodes);
    add_url(app);
  }

  void add_url(CLI::App& to) {
    to.add_option("--url", url, "The coordinator; also ONESTEP_URL (default http://127.0.0.1:8080)");
    to.add_option("--ca", ca, "Authority of an https coordinator's certificate (PEM); also ONESTEP_CA (default: the system's)");
    to.add_option("--token-file", token_file, "File of mode 0600 with the token to show; also ONESTEP_TOKEN_FILE, or ONESTEP_TOKEN");
  }

  CLI::App* add(const std::string& name, const std::string& what, const std::string& examples) {
    CLI::App* command = app.add_subcommand(name, what);
    command->footer("Examples:\n" + examples);
    return command;
  }

  // A command that talks to a coordinator.
  CLI::App* add_remote(const std::string& name, const std::string& what, const std::string& examples,
                       std::function<int(const Client&)> action) {
    CLI::App* command = add(name, what, examples);
    add_url(*command);
    add_json(*command);
    command->callback([this, action = std::move(action)] { run = [this, action] { return action(client()); }; });
    return command;
  }

  CLI::App* add_local(const std::string& name, const std::string& what, const std::string& examples,
                      std::function<int()> action) {
    CLI::App* command = add(name, what, examples);
    command->callback([this, name, action = std::move(action)] { run_alone(name, action); });
    return command;
  }

  void run_alone(const std::string& name, std::function<int()> action) {
    if (!url.empty() || !ca.empty() || !token_file.empty()) {
      throw Error(ErrorCode::kUsage, "'" + name + "' talks to no coordinator: leave --url, --ca and --token-file out");
    }
    run = std::move(action);
  }

  // Is a coordinator named, on the command line or in the environment?
  [[nodiscard]] bool names_coordinator() const { return !given(url, "ONESTEP_URL", "").empty(); }

  void add_json(CLI::App& to) { to.add_flag("--json", json, "Print JSON"); }

  [[nodiscard]] Client client() const {
    Credentials credentials;
    credentials.ca_file = given(ca, "ONESTEP_CA", "");
    const std::string file = given(token_file, "ONESTEP_TOKEN_FILE", "");
    credentials.token = file.empty() ? given("", "ONESTEP_TOKEN", "") : read_secret_file(file);
    return Client(parse_server_url(given(url, "ONESTEP_URL", kDefaultUrl)), std::move(credentials));
  }

 private:
  // On the command line, else in the environment, else the default.
  static std::string given(const std::string& option, const char* variable, const char* fallback) {
    const char* environment = std::getenv(variable);
    return !option.empty() ? option : environment && *environment ? environment : fallback;
  }
};

// Where the options of all subcommands land.
struct Options {
  UpOptions up;
  DoctorOptions doctor;
  SubmitOptions submit;
  LogsOptions logs;
  SampleOptions sample;
  PlanOptions plan;
  std::string memory;
  PackOptions pack;
  EvaluateOptions evaluate;
  std::string job, pipeline, state, out, path;
  std::string selection = "auto";
  std::string dtype = "fp32";
  bool resume = false;
  PrivateCaOptions ca;
  DataToolOptions tool;
  std::string shell;
};

void add_service_commands(CommandLine& line, Options& options) {
  CLI::App* up = line.add_local("up", "Start a coordinator here; it runs until it is interrupted",
                                "  onestep up\n  onestep up --data /var/lib/onestep --listen 127.0.0.1:9000\n"
                                "  onestep up --listen 0.0.0.0:8443 --tls /etc/onestep/tls --root /srv/datasets\n"
                                "  onestep up --launcher slurm-batch --slurm partition=gpu --slurm time=4:00:00\n",
                                [&]() -> int { start_coordinator(options.up); });
  up->add_option("--data", options.up.data, "Folder for jobs and the database (default ./onestep-data)");
  up->add_option("--listen", options.up.listen,
                 "HOST:PORT; port 0 takes a free one (default 127.0.0.1:8080); where other machines reach it, with --tls and tokens");
  up->add_option("--tls", options.up.tls, "Folder with server.crt and server.key, as init-tls makes it");
  up->add_option("--auth", options.up.auth, "none, or token: every call needs one (default: none on a loopback address, else token)")
      ->check(CLI::IsMember({"none", "token"}));
  up->add_option("--root", options.up.roots,
                 "Folder that jobs may name files in, besides --data; may be repeated (default without tokens: the current and "
                 "the home folder)")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  up->add_option("--slots", options.up.slots, "Ranks that may run at a time (default: the GPUs, without any the processors; those of the hostfile or allocation)")
      ->check(CLI::Range(1, 65536));
  up->add_option("--launcher", options.up.launcher,
                 "local: mpirun here (default); hostfile: mpirun on other hosts; slurm-step: steps of this allocation; slurm-batch: "
                 "a Slurm job an attempt")
      ->check(CLI::IsMember({"local", "hostfile", "slurm-step", "slurm-batch"}));
  up->add_option("--hostfile", options.up.hostfile, "Hosts and their slots, as Open MPI reads them");
  up->add_option("--slurm", options.up.slurm, "KEY=VALUE for srun or sbatch, such as partition=gpu; may be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  up->add_option("--telemetry", options.up.telemetry,
                 "Name or address of this host for ranks on other hosts, which report over TLS (default: ranks are on this host)");
  up->add_option("--ranks-per-node", options.up.ranks_per_node, "With Slurm: ranks that a node has room for (default: the allocation's tasks a node)")
      ->check(CLI::Range(1, 4096));
  up->add_option("--queue", options.up.queue, "Jobs that may be waiting or running; beyond them nothing is taken (default 10000)")
      ->check(CLI::Range(1, 10'000'000));
  up->add_flag("--stop-workers", options.up.stop_workers, "When stopped, stop running jobs too, after a checkpoint");
  up->add_flag("--resume-stopped", options.up.resume_stopped, "Go on with the jobs that were stopped in this way, not with cancelled ones");
  up->add_option("--log-format", options.up.log_format, "text or json, of the coordinator and its workers (default text)")
      ->check(CLI::IsMember({"text", "json"}));

  CLI::App* doctor = line.add_local(
      "doctor", "Say whether this machine or cluster has what a run needs, and what to do where it has not",
      "  onestep doctor\n  onestep doctor --data /shared/onestep --launcher hostfile --hostfile hosts --ranks 8\n"
      "  onestep doctor --launcher slurm-batch --slurm partition=gpu --json\n",
      [&] { return print_examination(options.doctor, line.json); });
  doctor->add_option("--data", options.doctor.data, "Data folder of the coordinator (default ./onestep-data)");
  doctor->add_option("--listen", options.doctor.listen, "HOST:PORT that it is to have (default 127.0.0.1:8080)");
  doctor->add_option("--launcher", options.doctor.launcher, "local, hostfile, slurm-step or slurm-batch, as of 'up' (default local)")
      ->check(CLI::IsMember({"local", "hostfile", "slurm-step", "slurm-batch"}));
  doctor->add_option("--hostfile", options.doctor.hostfile, "Hosts and their slots");
  doctor->add_option("--slurm", options.doctor.slurm, "KEY=VALUE for srun, such as partition=gpu; may be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  doctor->add_option("--ranks", options.doctor.ranks, "Ranks to start for a look at the shared folder (default 2)")->check(CLI::Range(1, 4096));
  doctor->add_option("--free", options.doctor.free_gib, "GiB that a run is thought to need (default 10)")->check(CLI::Range(0.0, 1e6));
  line.add_json(*doctor);

  CLI::App* submit = line.add_remote(
      "submit", "Submit a pipeline or job file",
      "  onestep submit configs/digits/pipeline.json --follow\n"
      "  onestep submit configs/digits/smoke/pipeline.json --set distill.ranks=2 --follow --json\n",
      [&](const Client& client) {
        options.submit.json = line.json;
        return submit_pipeline(client, options.submit);
      });
  submit->add_option("file", options.submit.file, "Pipeline or job spec (JSON)")->required();
  submit->add_option("--set", options.submit.overrides, "JOB.KEY=VALUE: change one value; may be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  submit->add_flag("--follow", options.submit.follow, "Show progress until the end; exit 7 if a job does not succeed");

  CLI::App* follow = line.add_remote(
      "follow", "Show the progress of a pipeline that was submitted earlier", "  onestep follow digits-p1\n",
      [&](const Client& client) { return follow_submitted(client, options.pipeline, options.resume, line.json); });
  follow->add_option("pipeline", options.pipeline, "Id of the pipeline")->required();
  follow->add_flag("--resume", options.resume, "First resume its jobs that failed or were stopped");
}

void add_job_commands(CommandLine& line, Options& options) {
  CLI::App* jobs = line.add_remote(
      "jobs", "List jobs", "  onestep jobs\n  onestep jobs --state running --json\n", [&](const Client& client) {
        list_jobs(client, options.state, options.pipeline, line.json);
        return 0;
      });
  jobs->add_option("--state", options.state, "Only those in this state");
  jobs->add_option("--pipeline", options.pipeline, "Only those of this pipeline");

  const auto add = [&](const char* name, const char* what, void (*action)(const Client&, const std::string&, bool)) {
    CLI::App* command = line.add_remote(name, what, std::string("  onestep ") + name + " distill-4\n  onestep " + name +
                                                        " distill --json      (the newest job of that name)\n",
                                        [&line, &options, action](const Client& client) {
                                          action(client, options.job, line.json);
                                          return 0;
                                        });
    command->add_option("job", options.job, "Id or name of the job")->required();
  };
  add("show", "Show one job: state, attempts, progress, result", show_job);
  add("cancel", "Stop a job after a checkpoint", cancel_job);
  add("resume", "Go on with a job that failed or was stopped", resume_job);
  add("checkpoint", "Save a checkpoint of a running job now", checkpoint_job);

  CLI::App* logs = line.add_remote("logs", "Print what a rank of a job logged",
                                   "  onestep logs distill-4\n  onestep logs distill-4 --rank 1 --follow\n"
                                   "  onestep logs distill-4 --rank mpirun --attempt 2\n",
                                   [&](const Client& client) {
                                     options.logs.json = line.json;
                                     print_logs(client, options.logs);
                                     return 0;
                                   });
  logs->add_option("job", options.logs.job, "Id or name of the job")->required();
  logs->add_option("--rank", options.logs.rank, "Rank, or mpirun (default 0)");
  logs->add_option("--attempt", options.logs.attempt, "Attempt (default: the newest)");
  logs->add_flag("--follow", options.logs.follow, "Until the job ends");
}

void add_result_commands(CommandLine& line, Options& options) {
  CLI::App* export_command = line.add_remote(
      "export", "Write the network that a job made as an inference folder",
      "  onestep export distill-4 --out exports/digits\n",
      [&](const Client& client) {
        return export_model(client, options.job, options.out, {options.selection, options.dtype}, line.json);
      });
  export_command->add_option("job", options.job, "Id or name of a distill or train_teacher job")->required();
  export_command->add_option("--out", options.out, "New or empty folder")->required();
  export_command->add_option("--checkpoint", options.selection,
                             "best: the best evaluated checkpoint; last: the final state (default: best when there is one)")
      ->check(CLI::IsMember({"best", "last"}));
  export_command->add_option("--dtype", options.dtype, "Of the weights: fp32, bf16 or fp16 (default fp32)")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16"}));

  CLI::App* tensorboard = line.add_remote(
      "tensorboard", "Write a job's curves and samples as a TensorBoard event file",
      "  onestep tensorboard distill-4 --out runs && tensorboard --logdir runs\n", [&](const Client& client) {
        save_tensorboard(client, options.job, options.out, line.json);
        return 0;
      });
  tensorboard->add_option("job", options.job, "Id or name of the job")->required();
  tensorboard->add_option("--out", options.out, "Folder; the file goes to DIR/JOB")->required();

  CLI::App* report = line.add_remote(
      "report", "Write report.json and grid.png of a finished pipeline of the demo and print its table",
      "  onestep report digits-p1 --out demo-out\n  onestep report --out demo-out      (again, without a coordinator)\n",
      [&](const Client& client) {
        if (options.pipeline.empty()) {
          show_saved_report(options.out, line.json);
        } else {
          write_report(client, options.pipeline, options.out, line.json);
        }
        return 0;
      });
  report->add_option("pipeline", options.pipeline, "Id of the pipeline; without it, the report already in --out is shown");
  report->add_option("--out", options.out, "Folder for report.json and grid.png")->required();

  CLI::App* sample = line.add_local(
      "sample", "Draw images from an exported model; needs no coordinator",
      "  onestep sample --model exports/digits --count 64 --out grid.png\n"
      "  onestep sample --model exports/digits --count 16 --seed 7 --class 3 --out threes.png\n"
      "  onestep sample --model exports/sd --prompt 'a photo of a cat' --count 4 --out cats.png\n",
      [&] {
        options.sample.json = line.json;
        return draw_samples(options.sample);
      });
  sample->add_option("--model", options.sample.model, "Export or run folder")->required();
  sample->add_option("--count", options.sample.count, "Images (default 16)")->check(CLI::Range(1, 1000000));
  sample->add_option("--seed", options.sample.seed, "Equal seeds give equal images (default 0)");
  sample->add_option("--class", options.sample.label, "Only this class (default: each in turn)");
  sample->add_option("--prompt", options.sample.prompts, "Text for a text-to-image model; may be repeated: each in turn")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  sample->add_option("--like", options.sample.like, "Pipeline folder for the configuration of a model of a single .safetensors file");
  sample->add_option("--out", options.sample.out, "PNG file to write")->required();
  line.add_json(*sample);

  CLI::App* plan = line.add_local(
      "plan", "Say what the jobs of a file will take: bytes a rank, bytes of pairs, images; exit 8 if they can't fit",
      "  onestep plan configs/digits/pipeline.json\n"
      "  onestep plan configs/digits/pipeline.json --set distill.dmd.batch=512 --ranks 4 --memory 80G --hours 24\n",
      [&] {
        options.plan.json = line.json;
        if (!options.memory.empty()) options.plan.memory = bytes_from_text(options.memory);
        return print_plan(options.plan);
      });
  plan->add_option("file", options.plan.file, "Pipeline or job spec (JSON)")->required();
  plan->add_option("--set", options.plan.overrides, "JOB.KEY=VALUE: change one value; may be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  plan->add_option("--ranks", options.plan.ranks, "So many ranks (default: as the specs say)")->check(CLI::Range(1, 4096));
  plan->add_option("--memory", options.memory, "Memory of the machine, such as 80G (default: what this one can still give)");
  plan->add_option("--hours", options.plan.hours, "Also say how many images/s a run of so many hours needs")
      ->check(CLI::Range(0.001, 1e6));
  line.add_json(*plan);

  CLI::App* evaluate = line.add_local(
      "evaluate", "Judge a folder of pictures by Inception; needs no coordinator",
      "  onestep evaluate --images samples --reference cifar10-32x32.npz --detector inception.safetensors\n"
      "  onestep evaluate --images samples --reference coco.npz --resize clean_fid --lanczos 256 --json\n"
      "  onestep evaluate --images samples --metrics is --save samples.npz\n",
      [&] {
        options.evaluate.json = line.json;
        return evaluate_images(options.evaluate);
      });
  evaluate->add_option("--images", options.evaluate.images, "Folder of PNG and JPEG files")->required();
  evaluate->add_option("--reference", options.evaluate.reference,
                       "Reference: .npz with mu and sigma, or with feats; or an HDF5 image file");
  evaluate->add_option("--detector", options.evaluate.detector,
                       "Weights of Inception-2015-12-05 as .safetensors; also ONESTEP_INCEPTION");
  evaluate->add_option("--resize", options.evaluate.resize, "tf1 (EDM, torch-fidelity; default), pytorch_fid or clean_fid");
  evaluate->add_option("--lanczos", options.evaluate.lanczos, "First scale to this side as Pillow's Lanczos does (COCO: 256)");
  evaluate->add_option("--metrics", options.evaluate.metrics, "Some of fid, is, kid, precision_recall (default fid)")->delimiter(',');
  evaluate->add_option("--count", options.evaluate.count, "Only the first so many files (default: all)");
  evaluate->add_option("--save", options.evaluate.save, "Write the pictures' own mu and sigma to this .npz");
  line.add_json(*evaluate);

  CLI::App* verify = line.add_local(
      "verify", "Say what a file or folder is and whether every byte of it is right",
      "  onestep verify onestep-data/jobs/distill-4\n  onestep verify exports/digits\n  onestep verify model.safetensors\n",
      [&] { return print_verification(options.path, line.json); });
  verify->add_option("path", options.path, "Run, checkpoint, pair set or export folder; .safetensors or .h5 file")->required();
  line.add_json(*verify);

  CLI::App* inspect = line.add_local(
      "inspect", "Say what any file or folder is: format, network, tensors, and the first things wrong with it",
      "  onestep inspect unet/diffusion_pytorch_model.safetensors\n  onestep inspect stable-diffusion-v1-5\n"
      "  onestep inspect teacher.pkl      (a pickle is named, never opened)\n",
      [&] { return print_inspection(options.path, line.json); });
  inspect->add_option("path", options.path, "File or folder; exit 4 when something is wrong with it")->required();
  line.add_json(*inspect);

  CLI::App* version = line.add_local("version", "Print version and commit", "  onestep version --json\n", [&] {
    if (line.json) {
      std::cout << nlohmann::json{{"version", build_version()}, {"commit", build_commit()}}.dump() << "\n";
    } else {
      std::cout << "onestep " << build_version() << " (" << build_commit() << ")\n";
    }
    return 0;
  });
  line.add_json(*version);
}

void add_dataset_commands(CommandLine& line, Options& options) {
  CLI::App* dataset = line.app.add_subcommand("dataset", "Prepare data");
  dataset->require_subcommand(1);
  dataset->footer("Examples:\n  onestep dataset pack cifar10.zip cifar10.h5\n");
  CLI::App* pack = dataset->add_subcommand("pack", "Make one checked image file of a folder or zip archive of PNG and JPEG files");
  pack->footer("Labels come from dataset.json at the top, as EDM keeps it. A run that was stopped goes on when it is started again.\n\n"
               "Examples:\n  onestep dataset pack cifar10.zip cifar10.h5\n"
               "  onestep dataset pack ffhq ffhq-64.h5 --resolution 64 --crop center --resize lanczos\n");
  pack->add_option("in", options.pack.in, "Folder or zip archive")->required();
  pack->add_option("out", options.pack.out, "HDF5 file to write; must not exist")->required();
  pack->add_option("--resolution", options.pack.resolution, "Pixels a side (default: those of the first picture)")->check(CLI::Range(1, 65536));
  pack->add_option("--crop", options.pack.crop, "center: cut the largest square out of the middle (default: refuse others)");
  pack->add_option("--resize", options.pack.resize, "box or lanczos: make larger pictures smaller (default: refuse them)");
  pack->add_option("--channels", options.pack.channels, "1 or 3; with 3, grey pictures become RGB (default: those of the first picture)");
  pack->add_option("--classes", options.pack.num_classes, "Number of classes (default: the highest label plus one)")->check(CLI::Range(1, 65536));
  pack->add_option("--jobs", options.pack.jobs, "Threads (default: the processors)")->check(CLI::Range(1, 4096));
  line.add_json(*pack);
  pack->callback([&] {
    line.run_alone("dataset", [&] { return run_pack_dataset(options.pack, line.json); });
  });
}

// Doors and the data folder: tokens are the coordinator program's, which knows the database.
void add_operator_commands(CommandLine& line, Options& options) {
  CLI::App* tls = line.add_local(
      "init-tls", "Make a private certificate authority and a server certificate for a cluster's coordinator",
      "  onestep init-tls --out tls --name head.cluster --name 10.0.0.7\n"
      "  onestep init-tls --out tls --name head.cluster      (again: a new server certificate of the same authority)\n",
      [&] {
        options.ca.folder = absolute_path(options.ca.folder);
        write_private_ca(options.ca);
        std::cout << "wrote " << options.ca.folder << "/server.crt and server.key for 'onestep up --tls "
                  << options.ca.folder << "', ca.crt for its clients (--ca); keep ca.key to yourself\n";
        return 0;
      });
  tls->add_option("--out", options.ca.folder, "Folder for the files")->required();
  tls->add_option("--name", options.ca.names, "Host name or numeric address of the server; may be repeated")
      ->required()
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  tls->add_option("--days", options.ca.days, "How long the server's certificate is valid (default 825)")->check(CLI::Range(1, 3650));

  // On this machine the database is the coordinator program's: it does what is said here. Elsewhere REST does.
  CLI::App* token = line.app.add_subcommand("token", "Make, list and revoke the tokens that a coordinator lets in");
  token->require_subcommand(1);
  token->footer("Examples:\n  onestep token add --data DIR --role submit --label ci --expires 90d\n"
                "  onestep token list --data DIR\n  onestep token revoke --data DIR 1a2b3c4d\n"
                "  onestep token list --url https://head.cluster:8443 --ca ca.crt --token-file admin.token\n");
  const auto add = [&](const char* name, const char* what, std::function<void(const Client&)> elsewhere) {
    CLI::App* command = token->add_subcommand(name, what);
    command->add_option("--data", options.tool.data,
                        "Folder of the coordinator, on its own machine (default ./onestep-data, unless --url or ONESTEP_URL names one)");
    line.add_url(*command);
    line.add_json(*command);
    command->callback([&line, &options, name, elsewhere] {
      if (options.tool.data.empty() && line.names_coordinator()) {
        line.run = [&line, elsewhere] {
          elsewhere(line.client());
          return 0;
        };
      } else {
        line.run_alone("token --data", [&line, &options, name]() -> int { start_data_tool({"token", name}, options.tool, line.json); });
      }
    });
    return command;
  };
  CLI::App* make = add("add", "Make one; it is printed once and never stored",
                       [&](const Client& client) { add_token(client, options.tool, line.json); });
  make->add_option("--role", options.tool.role, "read, submit (read, submit and steer jobs) or admin")->required();
  make->add_option("--label", options.tool.label, "For people: whose it is");
  make->add_option("--expires", options.tool.expires, "90d, 12h, 30m, or never (default 90d)");
  make->add_option("--out", options.tool.out, "Write it to this file, mode 0600, and print nothing");
  add("list", "List them", [&](const Client& client) { list_tokens(client, line.json); });
  add("revoke", "One opens nothing any more, at once", [&](const Client& client) { revoke_token(client, options.tool, line.json); })->add_option("id", options.tool.id, "Its id, as list shows it")->required();

  CLI::App* backup = line.add_local(
      "backup", "Copy a coordinator's database and what its checkpoints are known by, also while it runs",
      "  onestep backup --data DIR --out /backups/onestep-monday\n",
      [&]() -> int { start_data_tool({"backup"}, options.tool, line.json); });
  backup->add_option("--data", options.tool.data, "Folder of the coordinator (default ./onestep-data)");
  backup->add_option("--out", options.tool.out, "New folder for the copy")->required();
  line.add_json(*backup);
}

void add_shell_commands(CommandLine& line, Options& options) {
  CLI::App* completion = line.add_local(
      "completion", "Print the completion of a shell: bash, zsh or fish",
      "  onestep completion bash > /etc/bash_completion.d/onestep\n"
      "  onestep completion zsh > ~/.zfunc/_onestep\n"
      "  onestep completion fish > ~/.config/fish/completions/onestep.fish\n",
      [&] {
        std::cout << completion_script(line.app, options.shell);
        return 0;
      });
  completion->add_option("shell", options.shell, "bash, zsh or fish")->required();
  line.add_local("man", "Print the manual page", "  onestep man > /usr/local/share/man/man1/onestep.1\n  onestep man | man -l -\n", [&] {
    std::cout << manual_page(line.app, build_version());
    return 0;
  });
}

// "onestep token add": as far as the command line was understood.
std::string begun_command(const CLI::App& app) {
  std::string words = app.get_name();
  for (const CLI::App* command = &app; !command->get_subcommands().empty();) {
    command = command->get_subcommands().front();
    words += " " + command->get_name();
  }
  return words;
}

// What is wrong with the first word, if that is it.
std::string unknown_command(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-' || argv[1][0] == '\0' || !app.get_subcommands().empty()) return "";
  std::vector<std::string> known;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) known.push_back(command->get_name());
  const std::string hint = nearest(std::string(argv[1]), known);
  return "unknown command '" + std::string(argv[1]) + "'" + (hint.empty() ? "" : " (did you mean '" + hint + "'?)");
}

int run_command_line(int argc, char** argv) {
  CommandLine line;
  Options options;
  add_service_commands(line, options);
  add_job_commands(line, options);
  add_result_commands(line, options);
  add_dataset_commands(line, options);
  add_operator_commands(line, options);
  add_shell_commands(line, options);
  try {
    line.app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return line.app.exit(error);  // --help
    const std::string unknown = unknown_command(line.app, argc, argv);
    std::cerr << "onestep: " << (unknown.empty() ? error.what() : unknown) << "; see '" << begun_command(line.app) << " --help'\n";
    return exit_status(ErrorCode::kUsage);
  }
  return line.run();
}

}  // namespace
}  // namespace onestep

int main(int argc, char** argv) {
  try {
    return onestep::run_command_line(argc, argv);
  } catch (const onestep::Error& error) {
    std::cerr << "onestep: " << error.what() << "\n";
    return onestep::exit_status(error.code());
  } catch (const std::exception& error) {
    std::cerr << "onestep: internal error: " << error.what() << "\n";
    return onestep::exit_status(onestep::ErrorCode::kInternal);
  }
}
