#include "parity/row_differences.h"

#include <algorithm>
#include <iterator>
#include <set>

namespace onestep {

std::vector<std::string> row_differences(const std::vector<ParityRecord>& document, const std::vector<ParityRecord>& recorded) {
  const auto keys_of = [](const std::vector<ParityRecord>& rows) {
    std::multiset<std::string> keys;
    for (const ParityRecord& row : rows) {
      std::string key = row.component + " | " + row.reference + " | " + row.inputs + " | " + row.measure;
      // Which of a row's bounds is shown hangs on the differences; whether there is one does not.
      key += row.backward ? " | backward" : " | " + row.no_backward;
      keys.insert(key);
    }
    return keys;
  };
  const auto in_document = keys_of(document), in_tests = keys_of(recorded);
  std::vector<std::string> lines, lost, stale;
  std::set_difference(in_tests.begin(), in_tests.end(), in_document.begin(), in_document.end(), std::back_inserter(lost));
  std::set_difference(in_document.begin(), in_document.end(), in_tests.begin(), in_tests.end(), std::back_inserter(stale));
  for (const std::string& key : lost) lines.push_back("not in the document: " + key);
  for (const std::string& key : stale) lines.push_back("no test records: " + key);
  return lines;
}

}  // namespace onestep
