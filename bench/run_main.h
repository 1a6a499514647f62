// main() of a measuring program: what goes wrong is one line on standard error and the status that fits.
#pragma once

#include <exception>
#include <iostream>

#include "common/error.h"

namespace onestep {

inline int run_main(const char* name, int (*program)(int, char**), int argc, char** argv) {
  try {
    return program(argc, argv);
  } catch (const Error& error) {
    std::cerr << name << ": " << error.what() << "\n";
    return exit_status(error.code());
  } catch (const std::exception& error) {
    std::cerr << name << ": " << error.what() << "\n";
    return exit_status(ErrorCode::kInternal);
  }
}

}  // namespace onestep
