// A row of docs/parity.md, filled by the test that compares a component with its reference; tools/parity.sh collects the rows.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "parity/parity_table.h"

namespace onestep {

inline constexpr const char* kRelativeNorm = "norm(a - b) / norm(b)";
inline constexpr const char* kAbsolute = "max abs(a - b)";
inline constexpr const char* kUnequal = "values that differ";

// What is compared with what. `component` is one of parity_components(), `measure` what a difference is.
struct ParityCase {
  std::string component, reference, inputs;
  std::string measure = kRelativeNorm;
  std::string backward = "";  // why there is no backward pass, where there is none
};

// "diffusers 0.42.1, torch 2.11.0": some of the packages that a golden file's `versions` names.
inline std::string versions_of(const nlohmann::json& versions, std::initializer_list<const char*> packages) {
  std::string text;
  for (const char* package : packages) {
    text += (text.empty() ? "" : ", ") + std::string(package) + " " + versions.at(package).get<std::string>();
  }
  return text;
}

// The largest differences so far, as shares of their bounds. A difference beyond its bound fails the test at once; the row is recorded
// when the object goes, whether the test passed or not.
class ParityRow {
 public:
  static constexpr bool kIsRun = ONESTEP_RECORDS_PARITY;  // defined for programs that tools/parity.sh runs: add_project_test(... PARITY)
  explicit ParityRow(ParityCase about) : about_(std::move(about)) {}
  ParityRow(const ParityRow&) = delete;
  ParityRow& operator=(const ParityRow&) = delete;
  ~ParityRow() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    const std::string key = kParityProperty + std::to_string(test->result()->test_property_count());
    testing::Test::RecordProperty(key, document().dump(-1, ' ', /*ensure_ascii=*/true));
  }

  void forward(double difference, double bound, const std::string& what = "output") {
    EXPECT_LE(difference, bound) << about_.component << ": forward: " << what;
    keep(forward_, difference, bound);
  }
  void backward(double difference, double bound, const std::string& what = "gradient") {
    EXPECT_LE(difference, bound) << about_.component << ": backward: " << what;
    keep(backward_, difference, bound);
  }

 private:
  struct Largest {
    double difference = 0, bound = -1;  // bound < 0: nothing was compared
  };

  // A difference that is no number is beyond every bound.
  static double share(const Largest& l) {
    if (l.difference <= l.bound) return l.bound > 0 ? l.difference / l.bound : 0;
    return l.difference > l.bound && l.bound > 0 ? l.difference / l.bound : std::numeric_limits<double>::infinity();
  }
  static void keep(Largest& largest, double difference, double bound) {
    const Largest found{difference, bound};
    if (largest.bound < 0 || share(found) > share(largest)) largest = found;
  }
  [[nodiscard]] nlohmann::json document() const {
    const auto side = [](const Largest& l) {
      return l.bound < 0 ? nlohmann::json() : nlohmann::json{{"difference", l.difference}, {"bound", l.bound}};
    };
    return {{"component", about_.component}, {"reference", about_.reference}, {"inputs", about_.inputs},
            {"measure", about_.measure},     {"no_backward", about_.backward}, {"forward", side(forward_)},
            {"backward", side(backward_)}};
  }

  ParityCase about_;
  Largest forward_, backward_;
};

}  // namespace onestep
