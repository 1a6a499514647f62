// Whether a document has the rows that tests record.
#pragma once

#include <string>
#include <vector>

#include "parity/parity_table.h"

namespace onestep {

// What a committed document lacks of the recorded rows, and has beyond them, a line each. A row is its component, reference, inputs and
// measure, and whether it has a backward pass; the numbers, which hang on the machine, do not count.
std::vector<std::string> row_differences(const std::vector<ParityRecord>& document, const std::vector<ParityRecord>& recorded);

}  // namespace onestep
