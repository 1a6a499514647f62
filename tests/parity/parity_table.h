// docs/parity.md: the rows that parity tests record (tests/support/parity.h), as tables; and what is wrong with them.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace onestep {

inline constexpr const char* kParityProperty = "parity";  // the key of a row among a test's recorded properties, a number behind it

struct ParityComponent {
  const char* section;
  const char* name;
};
// Everything that must have a row, in the order of the document.
const std::vector<ParityComponent>& parity_components();

struct ParitySide {
  double difference = 0;  // not finite: beyond every bound
  double bound = 0;
  [[nodiscard]] bool passes() const { return difference <= bound; }
};

struct ParityRecord {
  std::string component, reference, inputs, measure;
  std::string no_backward;  // why nothing is compared there; empty where something is
  std::optional<ParitySide> forward, backward;
};

// The rows among the recorded properties of a GoogleTest report (--gtest_output=json:...).
std::vector<ParityRecord> recorded_rows(const nlohmann::json& report);
// In the components' order; within one, as given.
std::string parity_document(const std::vector<ParityRecord>& rows);
// The rows of such a document. Errors: kCorrupt for a row of another form.
std::vector<ParityRecord> rows_of_document(const std::string& document);
// A line for each component without a row, unknown component, row without a comparison and difference beyond its bound.
std::vector<std::string> parity_faults(const std::vector<ParityRecord>& rows);

}  // namespace onestep
