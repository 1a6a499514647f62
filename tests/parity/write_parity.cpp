// write_parity FOLDER DOCUMENT: collects the rows of every GoogleTest report (*.json) of FOLDER into DOCUMENT, as tools/parity.sh does.
// Prints what is wrong with them, one a line; exit status 1 then, and DOCUMENT says it too.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iterator>

#include "common/durable_file.h"
#include "common/error.h"
#include "parity/parity_table.h"

int main(int argc, char** argv) {
  using namespace onestep;
  if (argc != 3) {
    std::fprintf(stderr, "usage: write_parity FOLDER DOCUMENT\n");
    return exit_status(ErrorCode::kUsage);
  }
  try {
    std::vector<std::filesystem::path> reports;
    for (const auto& entry : std::filesystem::directory_iterator(argv[1])) {
      if (entry.path().extension() == ".json") reports.push_back(entry.path());
    }
    std::sort(reports.begin(), reports.end());  // the same order of rows every time
    std::vector<ParityRecord> rows;
    for (const auto& report : reports) {
      auto found = recorded_rows(nlohmann::json::parse(read_file(report.string())));
      std::move(found.begin(), found.end(), std::back_inserter(rows));
    }
    write_file_durably(argv[2], parity_document(rows));
    const auto faults = parity_faults(rows);
    for (const std::string& fault : faults) std::fprintf(stderr, "parity: %s\n", fault.c_str());
    std::printf("%s: %zu rows of %zu components, %zu faults\n", argv[2], rows.size(), parity_components().size(), faults.size());
    return faults.empty() ? 0 : 1;
  } catch (const Error& error) {
    std::fprintf(stderr, "write_parity: %s\n", error.what());
    return exit_status(error.code());
  } catch (const std::exception& error) {  // a folder that is not there, a report that is no JSON
    std::fprintf(stderr, "write_parity: %s\n", error.what());
    return exit_status(ErrorCode::kNotFound);
  }
}
