// The launcher that the operator chose.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "coordinator/launcher/launcher.h"

namespace onestep {

struct LauncherChoice {
  std::string kind = "local";      // "local", "hostfile", "slurm-step", "slurm-batch"
  std::string hostfile;            // of "hostfile"
  std::vector<std::string> slurm;  // "partition=gpu": of both of Slurm
  int ranks_per_node = 0;          // of both of Slurm; 0: as the allocation says
};

// Errors: kUsage for options that do not belong to the kind, or slurm-step outside an allocation; those of its constructor.
std::unique_ptr<Launcher> make_launcher(const LauncherChoice& choice, int cores);

// Ranks that this machine runs at a time unless told: one a GPU, or one a core where there are no GPUs.
// `visible_devices`: CUDA_VISIBLE_DEVICES, null when unset; `device_nodes`: names in /dev.
int default_slots(int cores, const char* visible_devices, const std::vector<std::string>& device_nodes);

// Tasks a node of the allocation that the environment describes: SLURM_NTASKS_PER_NODE ("2"), else the first number of
// SLURM_TASKS_PER_NODE ("2(x4)"), else 1. Either may be null.
int ranks_per_node_of_allocation(const char* ntasks_per_node, const char* tasks_per_node);

}  // namespace onestep
