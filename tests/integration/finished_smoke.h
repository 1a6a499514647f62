// One small finished pipeline for all tests: detector, teacher, pairs, student, evaluations, export.
#pragma once

#include <nlohmann/json.hpp>

#include <string>

namespace onestep {

struct FinishedSmoke {
  std::string data;             // the coordinator's folder
  nlohmann::json last_line;     // of `submit --follow --json`
  [[nodiscard]] std::string run_folder(const std::string& job) const;  // by name
  [[nodiscard]] std::string digest(const std::string& job) const;
};

// Made by the first caller since the programs were built (a minute or two); later ones, in other processes too, find it.
FinishedSmoke finished_smoke();

// A job spec for the smoke pipeline's student, with absolute paths, longer than in the pipeline so that there is time
// to disturb it; no automatic evaluations.
nlohmann::json long_student(const FinishedSmoke& smoke, int ranks);
// Its digest, from one rank without a coordinator; computed once.
std::string long_student_digest(const FinishedSmoke& smoke);

std::string source_folder();

}  // namespace onestep
