#include "coordinator/web_files.h"

#include <vector>

#include "coordinator/web_table.h"

namespace onestep {
namespace {

std::string_view content_type_of(std::string_view path) {
  if (path.ends_with(".html")) return "text/html; charset=utf-8";
  if (path.ends_with(".css")) return "text/css; charset=utf-8";
  if (path.ends_with(".js")) return "text/javascript; charset=utf-8";
  return "image/svg+xml";
}

}  // namespace

const WebFile* web_file(std::string_view path) {
  static const std::vector<WebFile> files = [] {
    std::vector<WebFile> all;
    for (const WebTableRow& row : web_table()) {
      all.push_back({row.path, content_type_of(row.path), row.bytes});
    }
    return all;
  }();
  if (path == "/") path = "/index.html";
  for (const WebFile& file : files) {
    if (file.path == path) return &file;
  }
  return nullptr;
}

std::string_view content_security_policy() {
  return "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
         "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
}

}  // namespace onestep
