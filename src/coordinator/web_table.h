// The files of web/ as cmake/embed_files.cmake makes them part of the program.
#pragma once

#include <span>
#include <string_view>

namespace onestep {

struct WebTableRow {
  std::string_view path;
  std::string_view bytes;
};
std::span<const WebTableRow> web_table();

}  // namespace onestep
