// Job specs and pipelines, from their bytes to their checks.
#include "common/config.h"
#include "common/pipeline.h"
#include "fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace onestep;
  try {
    const Pipeline pipeline = parse_pipeline(parse_json(text_of(data, size), "input"), "/base", "input");
    for (const PipelineJob& job : pipeline.jobs) {
      // What was accepted is written and read again as the same.
      const nlohmann::json written = to_json(job.spec);
      if (to_json(parse_job_spec(written, "/", "again")) != written) __builtin_trap();
    }
  } catch (const Error&) {
  }
  return 0;
}
