// Figures of the service and of a job in the formats of other programs.
#include <tuple>
#include <utility>

#include "common/durable_file.h"
#include "common/error.h"
#include "coordinator/api_call.h"
#include "coordinator/samples.h"
#include "coordinator/tensorboard_file.h"

namespace onestep {
namespace {

// Width and height, from the header that every PNG file begins with. Errors: kCorrupt.
std::pair<int, int> png_size(const std::string& bytes, const std::string& path) {
  constexpr std::size_t kWidthAt = 16, kEnd = 24;
  if (bytes.size() < kEnd || !bytes.starts_with("\x89PNG\r\n\x1a\n")) throw Error(ErrorCode::kCorrupt, path + ": expected a PNG file");
  int sizes[2] = {0, 0};
  for (std::size_t at = kWidthAt; at < kEnd; ++at) {
    int& size = sizes[(at - kWidthAt) / 4];
    size = size << 8 | static_cast<unsigned char>(bytes[at]);
  }
  return {sizes[0], sizes[1]};
}

}  // namespace

HttpResponse Api::tensorboard(Call& call) {
  const JobRecord job = coordinator_.job(call.id());
  std::vector<TensorboardPicture> pictures;
  for (const SampleRecord& sample : samples_of(coordinator_, job.id)) {
    TensorboardPicture& picture = pictures.emplace_back();
    picture.iteration = sample.iteration;
    picture.time = job.created;
    picture.png = read_file(sample.file);
    std::tie(picture.width, picture.height) = png_size(picture.png, sample.file);
  }
  HttpResponse response;
  response.content_type = "application/octet-stream";
  response.headers["Content-Disposition"] =
      "attachment; filename=\"events.out.tfevents." + std::to_string(static_cast<std::int64_t>(job.created)) + "." + job.id + "\"";
  response.body = tensorboard_file(coordinator_.metrics(job.id, {}, kMaxCurvePoints), pictures, job.created);
  return response;
}

HttpResponse Api::service_metrics(Call&) {
  HttpResponse response;
  response.content_type = ServiceMetrics::kContentType;
  response.body = metrics_.text(coordinator_, {.event_readers = events_.num_readers()});
  return response;
}

}  // namespace onestep
