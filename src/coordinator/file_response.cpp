#include "coordinator/file_response.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>

#include "coordinator/problem.h"

namespace onestep {
namespace {

std::optional<std::int64_t> count_of(std::string_view digits) {
  std::int64_t value = 0;
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (digits.empty() || failure != std::errc() || end != digits.data() + digits.size() || value < 0) return std::nullopt;
  return value;
}

struct ByteRange {
  std::int64_t first = 0;
  std::int64_t length = 0;  // 0: it lies nowhere in the file
};

// nullopt: none, several, or no range of bytes: the whole file is the answer.
std::optional<ByteRange> range_of(const std::string& text, std::int64_t size) {
  if (!text.starts_with("bytes=") || text.find(',') != std::string::npos) return std::nullopt;
  const std::string_view range = std::string_view(text).substr(6);
  const std::size_t dash = range.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const std::optional<std::int64_t> first = count_of(range.substr(0, dash)), last = count_of(range.substr(dash + 1));
  if (dash == 0) {  // the last so many
    if (!last) return std::nullopt;
    const std::int64_t length = std::min(*last, size);
    return ByteRange{size - length, length};
  }
  if (!first || (!last && dash + 1 != range.size()) || (last && *last < *first)) return std::nullopt;
  if (*first >= size) return ByteRange{};
  const std::int64_t end = last ? std::min(*last, size - 1) : size - 1;
  return ByteRange{*first, end - *first + 1};
}

// "*", or a list of tags one of which is `tag`; a weak one compares as its strong one does.
bool names_tag(const std::string& list, const std::string& tag) {
  return list == "*" || list.find(tag) != std::string::npos;
}

}  // namespace

HttpResponse file_response(const HttpRequest& request, const std::string& content_type, const std::string& tag,
                           OpenFile file) {
  const std::string quoted = "\"" + tag + "\"";
  const std::int64_t size = file.size();
  HttpResponse response;
  response.content_type = content_type;
  response.headers = {{"ETag", quoted}, {"Accept-Ranges", "bytes"}, {"Cache-Control", "private, no-cache"}};
  if (names_tag(header_field(request, "if-none-match"), quoted)) {
    response.status = 304;
    return response;
  }
  const std::string condition = header_field(request, "if-range");
  std::optional<ByteRange> range;
  if (condition.empty() || condition == quoted) range = range_of(header_field(request, "range"), size);
  if (range && range->length == 0) {
    HttpResponse refusal = problem(416, "usage", "Range: expected bytes of 0 to " + std::to_string(size - 1) + ", found \"" +
                                                     header_field(request, "range") + "\"", request.target);
    refusal.headers["Content-Range"] = "bytes */" + std::to_string(size);
    return refusal;
  }
  const ByteRange part = range.value_or(ByteRange{0, size});
  if (range) {
    response.status = 206;
    response.headers["Content-Range"] = "bytes " + std::to_string(part.first) + "-" +
                                        std::to_string(part.first + part.length - 1) + "/" + std::to_string(size);
  }
  response.file = std::make_shared<FilePart>(FilePart{std::move(file), part.first, part.length});
  return response;
}

}  // namespace onestep
