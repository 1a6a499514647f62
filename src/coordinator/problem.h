// Problem documents (RFC 9457): the one shape of every error that REST answers.
#pragma once

#include <string>
#include <vector>

#include "common/error.h"
#include "coordinator/http_message.h"

namespace onestep {

// {type, title, status, detail, instance} and, when there are any, errors[{pointer, detail}], or
// with `in_query` errors[{parameter, detail}]. 429 and 503 say when to come again (Retry-After).
// `name` is the last part of the type ("urn:onestep:problem:not_found"); `instance` is the
// request's target.
HttpResponse problem(int status, const std::string& name, const std::string& detail,
                     const std::string& instance, const std::vector<Violation>& errors = {}, bool in_query = false);
// The same for an exception; a ConfigError's violations become errors[].
HttpResponse problem(const Error& error, const std::string& instance);

// Every name that a problem has: those of the error codes, and "unauthorized" and "forbidden".
const std::vector<std::string>& problem_names();

// 400 kUsage, 404 kNotFound, 409 kConflict, 422 kConfig and kMismatch, 503 kUnavailable, 507 kIo,
// else 500.
int http_status(ErrorCode code);

}  // namespace onestep
