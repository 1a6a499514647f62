#include "worker/data/prompt_embeddings.h"

namespace onestep {

torch::Tensor PromptEmbeddings::text(const torch::Tensor& index) const {
  const auto row = static_cast<std::size_t>(info().row_elements());
  const auto values = torch::empty({index.size(0), info().tokens, info().width});
  const auto rows = index.contiguous();
  for (std::int64_t i = 0; i < rows.size(0); ++i) {
    file_.read_row(rows.const_data_ptr<std::int64_t>()[i], {values.data_ptr<float>() + static_cast<std::size_t>(i) * row, row});
  }
  return values;
}

torch::Tensor PromptEmbeddings::null_text() const {
  const auto values = torch::empty({1, info().tokens, info().width});
  file_.read_null_text({values.data_ptr<float>(), static_cast<std::size_t>(info().row_elements())});
  return values;
}

}  // namespace onestep
