// What an operator does to a data folder beside the running coordinator: tokens, backups.
#pragma once

namespace onestep {

// True for `onestep-coordinator token ...` and `onestep-coordinator backup ...`.
bool is_data_tool(int argc, char** argv);
// Runs it; returns the exit status. Errors: those of Store; kUsage, kConflict.
int run_data_tool(int argc, char** argv);

}  // namespace onestep
