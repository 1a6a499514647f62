// The text side of a job: prompts checked against the model that they are for, and who gets which.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "worker/data/prompt_embeddings.h"
#include "worker/diffusion/denoiser.h"
#include "worker/run/model_folder.h"

namespace onestep {

struct JobText {
  std::unique_ptr<PromptEmbeddings> prompts;  // null for networks without text
  SdPipeline parts;                           // tokenizer, text encoder, autoencoder; null too
};

// `folder`: what the job's spec says under "prompts". Makes the pipeline's digest known in model.sd. With `verify`, the embeddings' digest is
// compared too. Errors: kMismatch when there is text and no prompts, prompts and no text, or embeddings of another encoder; those of the
// readers.
JobText load_job_text(LoadedModel& model, const std::string& folder, bool verify);

// Images first .. first+count-1 of a numbered set.
struct NumberedRows {
  torch::Tensor labels;     // [count] int64: i mod num_classes, or i mod the number of prompts; zeros where there is neither
  Condition condition;
  torch::Tensor null_text;  // undefined without prompts
};
[[nodiscard]] torch::Tensor numbered_labels(const Denoiser& denoiser, const PromptEmbeddings* prompts, std::int64_t first,
                                            std::int64_t count);
NumberedRows numbered_rows(const Denoiser& denoiser, const PromptEmbeddings* prompts, std::int64_t first, std::int64_t count);

}  // namespace onestep
