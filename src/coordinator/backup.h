// A copy of what a coordinator remembers, made while it runs.
#pragma once

#include <cstdint>
#include <string>

namespace onestep {

struct BackupSummary {
  std::string folder;
  std::int64_t num_jobs = 0;
  std::int64_t num_files = 0;
  std::string digest;  // SHA-256 of its SHA256SUMS
};

// Into the new folder `out`: the database as it is at one moment, and of each job in it the small files that say what it was
// and made (job.json, outcomes, manifests of checkpoints and pair sets, SHA256SUMS), under jobs/<id>/. SHA256SUMS comes last:
// a folder without one is half a backup. Weights and pairs are not in it: their manifests name them by digest.
// Errors: kConflict when `out` exists or the coordinator that runs is of another version; kNotFound without a database; kIo.
BackupSummary back_up(const std::string& data, const std::string& out);

}  // namespace onestep
