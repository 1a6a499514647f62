// The prompts of a text-to-image job as a network sees them: rows of the embeddings file that encode_prompts made.
#pragma once

#include <cstdint>
#include <string>

#include "common/embedding_file.h"
#include "worker/tensors/torch.h"

namespace onestep {

// Thread-safe after construction.
class PromptEmbeddings {
 public:
  // `folder`: output of an encode_prompts job. Errors: kNotFound, kCorrupt.
  explicit PromptEmbeddings(const std::string& folder) : file_(folder + "/" + kEmbeddingFileName) {}
  // Reads the whole file and compares its digest. Errors: kCorrupt.
  void verify() const { file_.verify(); }
  [[nodiscard]] std::int64_t size() const { return file_.info().count; }
  [[nodiscard]] const EmbeddingFileInfo& info() const { return file_.info(); }
  [[nodiscard]] const std::string& path() const { return file_.path(); }
  // index [B] int64, each below size() -> [B,T,D] fp32. Errors: kIo, kCorrupt.
  [[nodiscard]] torch::Tensor text(const torch::Tensor& index) const;
  // Of the empty prompt: [1,T,D] fp32.
  [[nodiscard]] torch::Tensor null_text() const;

 private:
  EmbeddingFile file_;
};

}  // namespace onestep
