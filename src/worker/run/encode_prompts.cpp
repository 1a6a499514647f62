// What a text encoder makes of each prompt of a file, once: embeddings.h5.
#include <algorithm>
#include <chrono>
#include <span>
#include <vector>

#include "common/embedding_file.h"
#include "common/error.h"
#include "common/prompt_file.h"
#include "worker/run/jobs.h"
#include "worker/run/sd_network.h"
#include "worker/run/stop_request.h"

namespace onestep {
namespace {

std::span<const float> values_of(const torch::Tensor& tensor) {
  return {tensor.const_data_ptr<float>(), static_cast<std::size_t>(tensor.numel())};
}

void report(const RunContext& context, std::int64_t done, std::int64_t all, double seconds) {
  const double rate = static_cast<double>(done) / seconds;
  context.telemetry.post(MessageType::kProgress, {{"stage", "prompts"},
                                                  {"iteration", done},
                                                  {"iterations", all},
                                                  {"images", done},
                                                  {"images_total", all},
                                                  {"images_per_second", rate},
                                                  {"seconds_left", static_cast<double>(all - done) / rate},
                                                  {"metrics", nlohmann::json::object()}});
}

}  // namespace

JobResult run_encode_prompts(const RunContext& context) {
  const auto& spec = std::get<EncodePromptsSpec>(context.spec.options);
  JobResult result;
  if (context.communicator.rank() != 0) return result;
  const PromptFile prompts = read_prompt_file(spec.prompts);
  SdPipeline pipeline = load_pipeline({spec.teacher, spec.like, ""}, SdParts::kOthers);
  EmbeddingFileInfo info;
  info.count = static_cast<std::int64_t>(prompts.texts.size());
  info.tokens = pipeline.tokenizer->options().max_length;
  info.width = pipeline.text_encoder->config().hidden_size;
  info.prompts_sha256 = prompts.sha256;
  info.text_encoder_sha256 = text_encoder_sha256(pipeline);

  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  EmbeddingWriter writer(context.run + "/" + kEmbeddingFileName, info, values_of(embed_prompts(pipeline, {""})));
  for (std::int64_t first = 0; first < info.count; first += spec.batch) {
    stop_if_asked(context, "nothing is kept: the prompts are encoded from the first one again");
    const std::int64_t last = std::min(first + spec.batch, info.count);
    writer.add(values_of(embed_prompts(pipeline, {prompts.texts.begin() + first, prompts.texts.begin() + last})));
    report(context, last, info.count, seconds());
  }
  info = writer.finish();
  result.digest = info.digest();
  result.result = {{"count", info.count},
                   {"tokens", info.tokens},
                   {"width", info.width},
                   {"prompts_sha256", info.prompts_sha256},
                   {"text_encoder_sha256", info.text_encoder_sha256},
                   {"prompts_per_second", static_cast<double>(info.count) / seconds()}};
  return result;
}

}  // namespace onestep
