#include "worker/run/model_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/files.h"
#include "support/temp_folder.h"
#include "support/tiny_sd.h"
#include "worker/models/model_factory.h"
#include "worker/run/diffusers_export.h"
#include "worker/run/job_text.h"
#include "worker/tensors/flat_parameters.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;

bool equal_parameters(const torch::nn::Module& a, const torch::nn::Module& b) {
  const auto left = a.named_parameters(), right = b.named_parameters();
  for (const auto& item : left) {
    if (!torch::equal(item.value(), right[item.key()])) return false;
  }
  return left.size() == right.size() && left.size() > 0;
}

TEST(ModelFolder, ATextNetworkComesBackThroughTheSameDoor) {
  const TempFolder folder;
  SdPipeline made = tiny_sd(3);
  export_diffusers_folder(folder / "pipeline", made, {});
  LoadedModel teacher = load_model(folder / "pipeline", "ema");
  ASSERT_TRUE(teacher.sd);
  EXPECT_EQ(teacher.generator_sigma, 0);
  EXPECT_TRUE(equal_parameters(teacher.denoiser->module(), made.denoiser->module()));
  EXPECT_EQ(error_of([&] { load_model(folder / "pipeline", "raw"); })->code, ErrorCode::kMismatch);
  (void)load_other_parts(*teacher.sd);

  ModelConfig config;
  config.network = network_json(teacher);
  config.kind = "distill";
  config.generator_sigma = 999;
  config.images = 12;
  config.teacher_sha256 = teacher.sha256;
  const std::string digest = save_model(folder / "student", config, named_tensors(teacher.denoiser->module()));
  LoadedModel student = load_model(folder / "student", "ema");
  EXPECT_EQ(student.sha256, digest);
  EXPECT_EQ(student.sha256, teacher.sha256);  // the same tensors
  EXPECT_EQ(student.teacher_sha256, teacher.sha256);
  EXPECT_EQ(student.generator_sigma, 999);
  EXPECT_EQ(network_json(student), network_json(teacher));
  EXPECT_TRUE(equal_parameters(student.denoiser->module(), made.denoiser->module()));
  EXPECT_TRUE(equal_parameters(*load_other_parts(*student.sd).text_encoder, *made.text_encoder));

  std::string text = slurp(folder / "student/config.json");
  text.replace(text.find("\"layers_per_block\": 1"), 21, "\"layers_per_block\": 2");
  spit(folder / "student/config.json", text);
  EXPECT_EQ(error_of([&] { load_model(folder / "student", "ema"); })->code, ErrorCode::kMismatch);
}

TEST(ModelFolder, SixteenBitsAreReadAsTheFileSays) {
  const TempFolder folder;
  const auto denoiser = make_denoiser({}, 1);
  const auto views = named_tensors(denoiser->module());
  ModelConfig config;
  config.network = to_json(NetworkSpec{});
  config.kind = "train_teacher";
  config.dtype = "bf16";
  std::vector<torch::Tensor> kept;
  std::vector<TensorView> rounded = views;
  std::size_t place = 0;
  for (const auto& parameter : denoiser->module().parameters()) {
    kept.push_back(parameter.detach().to(torch::kBFloat16).contiguous());
    rounded[place].dtype = DType::kBF16;
    rounded[place++].bytes = {static_cast<const std::byte*>(kept.back().const_data_ptr()), kept.back().nbytes()};
  }
  save_model(folder / "bf16", config, rounded);
  const LoadedModel read = load_model(folder / "bf16", "ema");
  const auto parameters = read.denoiser->module().parameters();
  ASSERT_EQ(parameters.size(), kept.size());
  for (std::size_t i = 0; i < kept.size(); ++i) EXPECT_TRUE(torch::equal(parameters[i], kept[i].to(torch::kFloat32))) << i;

  save_model(folder / "other", config, views);  // F32 tensors under the name bf16
  const auto error = error_of([&] { load_model(folder / "other", "ema"); });
  ASSERT_TRUE(error);
  EXPECT_THAT(error->message, HasSubstr("expected BF16"));
  config.dtype = "int4";
  save_model(folder / "unknown", config, views);
  EXPECT_THAT(error_of([&] { load_model(folder / "unknown", "ema"); })->message, HasSubstr("expected fp32, bf16 or fp16, found \"int4\""));
}

TEST(ModelFolder, PromptsAndTextGoTogether) {
  const TempFolder folder;
  SdPipeline made = tiny_sd(3);
  export_diffusers_folder(folder / "pipeline", made, {});
  LoadedModel text = load_model(folder / "pipeline", "ema");
  EXPECT_THAT(error_of([&] { load_job_text(text, "", true); })->message, HasSubstr("prompts: expected an encode_prompts folder"));
  LoadedModel plain;
  plain.path = "digits";
  EXPECT_THAT(error_of([&] { load_job_text(plain, "p", true); })->message, HasSubstr("prompts: expected none for digits"));
  EXPECT_EQ(load_job_text(plain, "", true).prompts, nullptr);

  const std::vector<std::string> prompts = {"a cat", "the sea"};
  const auto embedded = embed_prompts(made, prompts), null_text = embed_prompts(made, {""});
  const auto values = [](const torch::Tensor& tensor) {
    return std::span<const float>(tensor.const_data_ptr<float>(), static_cast<std::size_t>(tensor.numel()));
  };
  EmbeddingFileInfo info{.count = 2, .tokens = 77, .width = 16, .prompts_sha256 = std::string(64, '1'),
                         .text_encoder_sha256 = text_encoder_sha256(made), .sha256 = {}};
  create_folders_durably(folder / "encoded");
  EmbeddingWriter writer(folder / "encoded/" + kEmbeddingFileName, info, values(null_text));
  writer.add(values(embedded));
  (void)writer.finish();
  const JobText loaded = load_job_text(text, folder / "encoded", true);
  const NumberedRows rows = numbered_rows(*text.denoiser, loaded.prompts.get(), 3, 3);
  EXPECT_TRUE(torch::equal(rows.labels, torch::tensor({1, 0, 1}, torch::kInt64)));
  EXPECT_TRUE(torch::equal(rows.condition.text, embedded.index_select(0, rows.labels)));
  EXPECT_TRUE(torch::equal(rows.null_text, null_text));
  EXPECT_FALSE(rows.condition.labels.defined());
}

}  // namespace
}  // namespace onestep
