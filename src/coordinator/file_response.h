// Downloads: whole or in part, told apart by their digest.
#pragma once

#include <string>

#include "coordinator/beneath.h"
#include "coordinator/http_message.h"

namespace onestep {

// 200, 206 for one satisfiable range (of Range, unless If-Range names another version), 304 when If-None-Match has the
// tag, 416 for a range that is nowhere. Several ranges are answered whole, as RFC 9110 allows.
// `tag`: without quotes, the same for the same bytes alone.
HttpResponse file_response(const HttpRequest& request, const std::string& content_type, const std::string& tag,
                           OpenFile file);

}  // namespace onestep
