// Rows of docs/parity.md for the Frechet distance of a case that tools/golden/make_metrics_golden.py wrote.
#pragma once

#include <cmath>
#include <string>

#include "support/parity.h"

namespace onestep {

// The nuclear norm by singular values takes no root of a number that should be zero; eigh's formula and sqrtm do, and are the less exact.
inline void record_frechet(const nlohmann::json& versions, const nlohmann::json& item, double found) {
  const std::string inputs = std::to_string(item.at("columns").get<int>()) + " dimensions, " + std::to_string(item.at("rows").at(0).get<int>()) +
                             " and " + std::to_string(item.at("rows").at(1).get<int>()) + " images";
  const auto compare = [&](const char* key, const std::string& reference, double bound) {
    ParityRow row({"Frechet distance", reference, inputs, "abs(a - b) / b", "none: a metric"});
    row.forward(std::abs(found - item.at(key).get<double>()) / item.at("singular_values").get<double>(), bound);
  };
  const std::string scipy = versions_of(versions, {"scipy"});
  compare("singular_values", scipy + ": nuclear norm", 1e-9);
  compare("eigh", scipy + ": eigh", 1e-6);
  if (item.contains("pytorch_fid")) compare("pytorch_fid", versions_of(versions, {"pytorch-fid"}) + ": sqrtm", 1e-6);
}

}  // namespace onestep
