// What is made of the command table: completions for shells, and the manual page.
#pragma once

#include <CLI/CLI.hpp>

#include <string>

namespace onestep {

// For "bash", "zsh" or "fish": commands, their options, files where an argument is one. Errors: kUsage for another shell.
std::string completion_script(const CLI::App& app, const std::string& shell);

// onestep(1) in roff. `version` stands at its foot.
std::string manual_page(const CLI::App& app, const std::string& version);

}  // namespace onestep
