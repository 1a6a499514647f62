#include "worker/run/model_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/files.h"
#include "support/temp_folder.h"
#include "support/tiny_sd.h"
#include "worker/models/golden_tensors.h"
#include "worker/models/model_factory.h"
#include "worker/run/diffusers_export.h"
#include "worker/run/job_text.h"
#include "worker/run/sample_noise.h"
#include "worker/sampling/few_step.h"
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

TEST(ModelFolder, AStudentOfSeveralStepsSaysWhichAndIsSampledAtThose) {
  const TempFolder folder;
  const auto denoiser = make_denoiser({}, 1);
  ModelConfig config;
  config.network = to_json(NetworkSpec{});
  config.kind = "distill";
  config.generator_sigma = 80;
  config.student_timesteps = {80, 2.5};
  save_model(folder / "two", config, named_tensors(denoiser->module()));
  const LoadedModel two = load_model(folder / "two", "ema");
  EXPECT_EQ(two.student_timesteps, config.student_timesteps);
  EXPECT_EQ(sampler_of(two).kind, "few_step");
  EXPECT_EQ(sampler_of(two).timesteps, config.student_timesteps);
  EXPECT_FALSE(error_of([&] { check_sampler_of(two, sampler_of(two)); }));
  SamplerSpec heun, one;
  one.kind = "one_step";
  EXPECT_FALSE(error_of([&] { check_sampler_of(two, heun); }));
  EXPECT_EQ(error_of([&] { check_sampler_of(two, one); })->code, ErrorCode::kMismatch);

  config.student_timesteps.clear();
  save_model(folder / "one", config, named_tensors(denoiser->module()));
  const LoadedModel student = load_model(folder / "one", "ema");
  EXPECT_EQ(sampler_of(student).kind, "one_step");
  EXPECT_FALSE(error_of([&] { check_sampler_of(student, one); }));
  EXPECT_EQ(error_of([&] { check_sampler_of(student, sampler_of(two)); })->code, ErrorCode::kMismatch);

  const std::string good = slurp(folder / "two/config.json");
  for (const char* bad : {"[80.0]", "[40.0, 2.5]", "[80.0, 80.0]", "[80.0, \"x\"]"}) {
    nlohmann::json document = nlohmann::json::parse(good);
    document["student_timesteps"] = nlohmann::json::parse(bad);
    spit(folder / "two/config.json", document.dump(2) + "\n");
    EXPECT_THAT(error_of([&] { load_model(folder / "two", "ema"); })->message, HasSubstr("student_timesteps")) << bad;
  }
}

TEST(ModelFolder, ATextStudentOfSeveralStepsGoesThroughItsPipeline) {
  const TempFolder folder;
  SdPipeline made = tiny_sd(3);
  SdExportOptions options;
  options.student_timesteps = {999, 499};
  options.origin = {{"format", "onestep-export"}, {"format_version", 1}, {"kind", "distill"}, {"weights", "ema"},
                    {"generator_timestep", 999}, {"images", 12}, {"teacher_sha256", std::string(64, 'a')},
                    {"student_timesteps", options.student_timesteps}};
  export_diffusers_folder(folder / "pipeline", made, options);
  EXPECT_THAT(slurp(folder / "pipeline/README.md"), HasSubstr("timesteps=[999,499], guidance_scale=1.0"));
  LoadedModel student = load_model(folder / "pipeline", "ema");
  EXPECT_EQ(student.student_timesteps, options.student_timesteps);
  // samples.safetensors is what the sampler makes of its noise.
  const SafetensorsFile samples(folder / "pipeline/samples.safetensors");
  const auto noise = tensor_of(samples.at("noise"));
  EXPECT_TRUE(torch::equal(tensor_of(samples.at("noise_1")), few_step_noise({.seed = 0, .first = 0}, 0, noise.sizes())));
  const auto latents = sample(*student.denoiser, sampler_of(student), noise, {{}, embed_prompts(made, options.sample_prompts)},
                              {.rows = SampleRows{.seed = 0, .first = 0}, .null_text = {}});
  EXPECT_TRUE(torch::equal(latents, tensor_of(samples.at("latents"))));
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
