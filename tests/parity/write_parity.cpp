// write_parity FOLDER DOCUMENT: collects the rows of every GoogleTest report (*.json) of FOLDER into DOCUMENT, as tools/parity.sh does.
// write_parity FOLDER DOCUMENT --check: writes nothing; whether DOCUMENT has the rows that the reports hold, and no other.
// Prints what is wrong, one a line; exit status 1 then, and DOCUMENT says it too.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iterator>

#include "common/durable_file.h"
#include "common/error.h"
#include "parity/parity_table.h"
#include "parity/row_differences.h"

namespace onestep {
namespace {

std::vector<ParityRecord> rows_of_reports(const std::string& folder) {
  std::vector<std::filesystem::path> reports;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".json") reports.push_back(entry.path());
  }
  std::sort(reports.begin(), reports.end());  // the same order of rows every time
  std::vector<ParityRecord> rows;
  for (const auto& report : reports) {
    auto found = recorded_rows(nlohmann::json::parse(read_file(report.string())));
    std::move(found.begin(), found.end(), std::back_inserter(rows));
  }
  return rows;
}

int report_faults(const std::string& document, std::size_t num_rows, const std::vector<std::string>& faults) {
  for (const std::string& fault : faults) std::fprintf(stderr, "parity: %s\n", fault.c_str());
  std::printf("%s: %zu rows of %zu components, %zu faults\n", document.c_str(), num_rows, parity_components().size(), faults.size());
  return faults.empty() ? 0 : 1;
}

int run(const std::string& folder, const std::string& document, bool is_check) {
  const auto rows = rows_of_reports(folder);
  if (is_check) return report_faults(document, rows.size(), row_differences(rows_of_document(read_file(document)), rows));
  write_file_durably(document, parity_document(rows));
  return report_faults(document, rows.size(), parity_faults(rows));
}

}  // namespace
}  // namespace onestep

int main(int argc, char** argv) {
  using namespace onestep;
  const bool is_check = argc == 4 && std::string(argv[3]) == "--check";
  if (argc < 3 || argc > 4 || (argc == 4 && !is_check)) {
    std::fprintf(stderr, "usage: write_parity FOLDER DOCUMENT [--check]\n");
    return exit_status(ErrorCode::kUsage);
  }
  try {
    return run(argv[1], argv[2], is_check);
  } catch (const Error& error) {
    std::fprintf(stderr, "write_parity: %s\n", error.what());
    return exit_status(error.code());
  } catch (const std::exception& error) {  // a folder that is not there, a report that is no JSON
    std::fprintf(stderr, "write_parity: %s\n", error.what());
    return exit_status(ErrorCode::kNotFound);
  }
}
