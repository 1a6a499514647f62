#include "worker/run/job_text.h"

#include <algorithm>

#include "common/error.h"

namespace onestep {

JobText load_job_text(LoadedModel& model, const std::string& folder, bool verify) {
  JobText text;
  if (!model.sd) {
    if (folder.empty()) return text;
    throw Error(ErrorCode::kMismatch, "prompts: expected none for " + model.path + ", a network without text, found " + folder);
  }
  if (folder.empty()) {
    throw Error(ErrorCode::kMismatch, "prompts: expected an encode_prompts folder for " + model.path +
                                          ", a text-to-image model, found nothing");
  }
  text.prompts = std::make_unique<PromptEmbeddings>(folder);
  text.parts = load_other_parts(*model.sd);
  const EmbeddingFileInfo& info = text.prompts->info();
  if (const std::string encoder = text_encoder_sha256(text.parts); info.text_encoder_sha256 != encoder) {
    throw Error(ErrorCode::kMismatch, text.prompts->path() + ": text_encoder_sha256: expected " + encoder + ", the text encoder of " +
                                          model.path + ", found " + info.text_encoder_sha256);
  }
  if (verify) text.prompts->verify();
  return text;
}

torch::Tensor numbered_labels(const Denoiser& denoiser, const PromptEmbeddings* prompts, std::int64_t first, std::int64_t count) {
  const std::int64_t kinds = prompts != nullptr ? prompts->size() : std::max<std::int64_t>(1, denoiser.num_classes());
  return torch::arange(first, first + count).remainder(kinds);
}

NumberedRows numbered_rows(const Denoiser& denoiser, const PromptEmbeddings* prompts, std::int64_t first, std::int64_t count) {
  NumberedRows rows;
  rows.labels = numbered_labels(denoiser, prompts, first, count);
  if (prompts != nullptr) {
    rows.condition.text = prompts->text(rows.labels);
    rows.null_text = prompts->null_text();
  } else if (denoiser.num_classes() > 0) {
    rows.condition.labels = rows.labels;
  }
  return rows;
}

}  // namespace onestep
