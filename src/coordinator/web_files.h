// The dashboard's files, which are part of the program.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace onestep {

struct WebFile {
  std::string_view path;  // "/app.js"
  std::string_view content_type;
  std::string_view bytes;
};

// nullptr for a path without a file; "/" is the page.
const WebFile* web_file(std::string_view path);
// What the page may do: scripts, styles and requests of its own origin alone.
std::string_view content_security_policy();

}  // namespace onestep
