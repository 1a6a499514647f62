#include "coordinator/launcher/make_launcher.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "common/error.h"
#include "coordinator/launcher/children.h"
#include "coordinator/launcher/hostfile_mpirun.h"
#include "coordinator/launcher/local_mpirun.h"
#include "coordinator/launcher/slurm_batch.h"
#include "coordinator/launcher/slurm_step.h"

namespace onestep {
namespace {

std::unique_ptr<Launcher> make_slurm_step(const LauncherChoice& choice) {
  const char* allocation = std::getenv("SLURM_JOB_ID");
  if (allocation == nullptr || *allocation == '\0') {
    throw Error(ErrorCode::kUsage,
                "--launcher slurm-step: expected to run inside an allocation (SLURM_JOB_ID), found none; start it from "
                "an sbatch script or salloc, or use --launcher slurm-batch");
  }
  const int ranks = choice.ranks_per_node > 0 ? choice.ranks_per_node
                                              : ranks_per_node_of_allocation(std::getenv("SLURM_NTASKS_PER_NODE"),
                                                                             std::getenv("SLURM_TASKS_PER_NODE"));
  return std::make_unique<SlurmStep>(SlurmStepOptions{.worker = worker_beside_this_program(),
                                                      .allocation = allocation,
                                                      .ranks_per_node = ranks,
                                                      .slurm = choice.slurm});
}

}  // namespace

std::unique_ptr<Launcher> make_launcher(const LauncherChoice& choice, int cores) {
  const bool slurm = choice.kind == "slurm-step" || choice.kind == "slurm-batch";
  if (!slurm && (!choice.slurm.empty() || choice.ranks_per_node > 0)) {
    throw Error(ErrorCode::kUsage, "--slurm and --ranks-per-node belong to --launcher slurm-step and slurm-batch, found " + choice.kind);
  }
  if (choice.hostfile.empty() != (choice.kind != "hostfile")) {
    throw Error(ErrorCode::kUsage, "--hostfile FILE and --launcher hostfile belong together; found --launcher " + choice.kind +
                                       (choice.hostfile.empty() ? " alone" : " with " + choice.hostfile));
  }
  const std::string worker = worker_beside_this_program();
  if (choice.kind == "local") return std::make_unique<LocalMpirun>(LocalMpirunOptions{.worker = worker, .mpirun = "mpirun", .cores = cores});
  if (choice.kind == "hostfile") {
    return std::make_unique<HostfileMpirun>(HostfileMpirunOptions{.worker = worker, .hostfile = choice.hostfile, .mpirun = "mpirun"});
  }
  if (choice.kind == "slurm-step") return make_slurm_step(choice);
  if (choice.kind == "slurm-batch") {
    return std::make_unique<SlurmBatch>(
        SlurmBatchOptions{.worker = worker, .ranks_per_node = choice.ranks_per_node, .slurm = choice.slurm});
  }
  throw Error(ErrorCode::kUsage, "--launcher: expected local, hostfile, slurm-step or slurm-batch, found " + choice.kind);
}

int default_slots(int cores, const char* visible_devices, const std::vector<std::string>& device_nodes) {
  int gpus = 0;
  for (const std::string& name : device_nodes) {
    const std::string prefix = "nvidia";
    if (name.size() > prefix.size() && name.starts_with(prefix) &&
        name.find_first_not_of("0123456789", prefix.size()) == std::string::npos) {
      ++gpus;
    }
  }
  if (gpus == 0) return cores;
  if (visible_devices != nullptr) {
    const std::string visible = visible_devices;
    const auto named = visible.empty() ? 0 : 1 + std::count(visible.begin(), visible.end(), ',');
    gpus = std::min(gpus, static_cast<int>(named));
  }
  return gpus > 0 ? gpus : cores;
}

int ranks_per_node_of_allocation(const char* ntasks_per_node, const char* tasks_per_node) {
  for (const char* text : {ntasks_per_node, tasks_per_node}) {
    const int number = text != nullptr ? std::atoi(text) : 0;
    if (number > 0) return number;
  }
  return 1;
}

}  // namespace onestep
