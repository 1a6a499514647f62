#include "worker/run/diffusers_folder.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "support/files.h"
#include "support/ldm_file.h"
#include "support/temp_folder.h"
#include "support/tiny_sd.h"
#include "worker/run/diffusers_export.h"
#include "worker/run/sd_network.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr const char* kUnetWeights = "/unet/diffusion_pytorch_model.safetensors";

// An exported tiny pipeline, made once and copied for each test that spoils it.
class DiffusersFolder : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    original_ = new TempFolder();
    SdPipeline pipeline = tiny_sd(3);
    export_diffusers_folder(original_->path(), pipeline, {});
  }
  static void TearDownTestSuite() {
    delete original_;
    original_ = nullptr;
  }
  void SetUp() override {
    std::filesystem::copy(original_->path(), copy_.path(), std::filesystem::copy_options::recursive);
  }
  [[nodiscard]] std::string path(const std::string& name) const { return copy_.path() + name; }
  void edit(const std::string& name, const std::function<void(json&)>& change) {
    json document = json::parse(slurp(path(name)));
    change(document);
    spit(path(name), document.dump());
  }
  // The error of loading the copy.
  CaughtError refusal() {
    const auto error = error_of([&] { load_sd_pipeline(copy_.path()); });
    EXPECT_TRUE(error.has_value());
    return error.value_or(CaughtError{ErrorCode::kInternal, "no error"});
  }
  void expect_refusal(ErrorCode code, const std::vector<std::string>& parts) {
    const CaughtError error = refusal();
    EXPECT_EQ(error.code, code) << error.message;
    for (const std::string& part : parts) EXPECT_NE(error.message.find(part), std::string::npos) << part << " in " << error.message;
  }

  static TempFolder* original_;
  TempFolder copy_;
};
TempFolder* DiffusersFolder::original_ = nullptr;

void expect_equal(const torch::nn::Module& a, const torch::nn::Module& b) {
  const auto left = a.named_parameters(), right = b.named_parameters();
  ASSERT_EQ(left.keys(), right.keys());
  for (const auto& item : left) EXPECT_TRUE(torch::equal(item.value(), right[item.key()])) << item.key();
}

TEST_F(DiffusersFolder, WhatWasExportedComesBackBitForBit) {
  const SdPipeline made = tiny_sd(3);
  SdPipeline read = load_sd_pipeline(copy_.path());
  expect_equal(made.denoiser->module(), read.denoiser->module());
  expect_equal(*made.vae, *read.vae);
  expect_equal(*made.text_encoder, *read.text_encoder);
  EXPECT_EQ(made.tokenizer->encode("It's a photo"), read.tokenizer->encode("It's a photo"));
  EXPECT_EQ(read.tokenizer->options().pad_token, "<|endoftext|>");
}

TEST_F(DiffusersFolder, ExportsAreReproducible) {
  SdPipeline pipeline = load_sd_pipeline(copy_.path());
  const TempFolder again;
  export_diffusers_folder(again.path(), pipeline, {});
  EXPECT_EQ(slurp(again / "SHA256SUMS"), slurp(path("/SHA256SUMS")));
  EXPECT_EQ(slurp(again / "samples.safetensors"), slurp(path("/samples.safetensors")));
}

TEST_F(DiffusersFolder, HalfPrecisionIsRoundedOnceAndReadInto32Bits) {
  SdPipeline pipeline = tiny_sd(3);
  for (const auto& [dtype, type] : {std::pair(DType::kF16, torch::kFloat16), std::pair(DType::kBF16, torch::kBFloat16)}) {
    const TempFolder folder;
    SdExportOptions options;
    options.dtype = dtype;
    options.sample_prompts.clear();
    export_diffusers_folder(folder.path(), pipeline, options);
    EXPECT_FALSE(file_exists(folder / "samples.safetensors"));
    const auto unet = load_sd_denoiser(folder / "unet", folder / "scheduler");
    for (const auto& item : pipeline.denoiser->module().named_parameters()) {
      const torch::Tensor read = unet->module().named_parameters()[item.key()];
      EXPECT_TRUE(torch::equal(read, item.value().to(type).to(torch::kFloat32))) << item.key();
    }
  }
}

TEST_F(DiffusersFolder, SingleUnetFileHasTheFoldersBytes) {
  SdPipeline pipeline = load_sd_pipeline(copy_.path());
  const std::string file = path("/unet.safetensors");
  export_unet_file(file, *pipeline.denoiser, DType::kF32);
  EXPECT_EQ(slurp(file), slurp(path(kUnetWeights)));
}

TEST_F(DiffusersFolder, OlderNamesAreRead) {
  const SafetensorsFile vae(original_->path() + "/vae/diffusion_pytorch_model.safetensors");
  std::vector<TensorView> old = vae.tensors();
  for (TensorView& tensor : old) {
    for (const auto& [now, before] : {std::pair(".to_q.", ".query."), {".to_k.", ".key."}, {".to_v.", ".value."}, {".to_out.0.", ".proj_attn."}}) {
      const std::size_t place = tensor.name.find(now);
      if (place != std::string::npos) tensor.name.replace(place, std::string(now).size(), before);
    }
  }
  write_safetensors(path("/vae/diffusion_pytorch_model.safetensors"), old, {});
  const SafetensorsFile text(original_->path() + "/text_encoder/model.safetensors");
  std::vector<TensorView> bare = text.tensors();
  for (TensorView& tensor : bare) tensor.name.erase(0, std::string("text_model.").size());
  const std::vector<std::int64_t> positions(77);
  bare.push_back({"embeddings.position_ids", DType::kI64, {1, 77}, std::as_bytes(std::span(positions))});
  write_safetensors(path("/text_encoder/model.safetensors"), bare, {});
  const SdPipeline made = tiny_sd(3), read = load_sd_pipeline(copy_.path());
  expect_equal(*made.vae, *read.vae);
  expect_equal(*made.text_encoder, *read.text_encoder);
}

TEST_F(DiffusersFolder, TinyAutoencoderOfItsOwnFolder) {
  TinyAutoencoderConfig config;
  config.encoder_block_out_channels = config.decoder_block_out_channels = {8, 8};
  config.num_encoder_blocks = config.num_decoder_blocks = {1, 1};
  TinyAutoencoder made(config);
  initialize_raw_layers(*made, 5, "");
  std::vector<TensorView> tensors;
  for (const auto& item : made->named_parameters()) {
    const auto* data = static_cast<const std::byte*>(item.value().const_data_ptr());
    tensors.push_back({item.key(), DType::kF32, item.value().sizes().vec(), {data, item.value().nbytes()}});
  }
  std::filesystem::create_directory(path("/taesd"));
  write_safetensors(path("/taesd/diffusion_pytorch_model.safetensors"), tensors, {});
  spit(path("/taesd/config.json"), to_diffusers_json(config).dump());
  expect_equal(*made, *load_tiny_autoencoder(path("/taesd")));
}

TEST_F(DiffusersFolder, EveryTensorThatDoesNotFitIsListedAtOnce) {
  const SafetensorsFile file(original_->path() + kUnetWeights);
  std::vector<TensorView> tensors = file.tensors();
  const std::vector<std::int64_t> integers(16);
  std::erase_if(tensors, [](const TensorView& tensor) { return tensor.name == "conv_in.bias"; });
  for (TensorView& tensor : tensors) {
    if (tensor.name == "conv_out.bias") tensor.shape = {2, 2};
    if (tensor.name == "conv_norm_out.bias") tensor = {tensor.name, DType::kI64, {16}, std::as_bytes(std::span(integers))};
    if (tensor.name == "conv_in.weight") tensor.name = "conv_inn.weight";
  }
  write_safetensors(path(kUnetWeights), tensors, {});
  expect_refusal(ErrorCode::kMismatch,
                 {kUnetWeights, "5 tensors don't fit", "conv_in.bias: missing, expected F32, F16 or BF16 [16]",
                  "conv_in.weight: missing", "conv_inn.weight: unexpected F32 [16, 4, 3, 3]",
                  "conv_norm_out.bias: expected F32, F16 or BF16 [16], found I64 [16]", "conv_out.bias: expected", "found F32 [2, 2]"});
}

TEST_F(DiffusersFolder, OtherNetworksAreRefusedByKey) {
  edit("/unet/config.json", [](json& config) {
    config["time_embedding_type"] = "fourier";
    config["class_embed_type"] = "timestep";
    config["layers_per_blok"] = 2;
    config["block_out_channels"] = {16, 33};
  });
  expect_refusal(ErrorCode::kConfig, {"/unet/config.json", "/time_embedding_type", "expected \"positional\", found \"fourier\"",
                                      "/class_embed_type", "/layers_per_blok", "did you mean 'layers_per_block'", "found 33"});
}

TEST_F(DiffusersFolder, OtherSchedulesAreRefusedByKey) {
  edit("/scheduler/scheduler_config.json", [](json& config) {
    config["beta_schedule"] = "linear";
    config["prediction_type"] = "sample";
  });
  expect_refusal(ErrorCode::kConfig, {"scheduler_config.json", "/beta_schedule", "/prediction_type"});
}

TEST_F(DiffusersFolder, OtherPipelinesAreRefused) {
  edit("/model_index.json", [](json& index) {
    index["vae"] = {"diffusers", "AutoencoderKLWan"};
    index["text_encoder_2"] = {"transformers", "CLIPTextModelWithProjection"};
  });
  expect_refusal(ErrorCode::kConfig, {"model_index.json", "/vae", "diffusers/AutoencoderKL", "/text_encoder_2"});
}

TEST_F(DiffusersFolder, PartsThatDoNotBelongTogetherAreRefused) {
  edit("/unet/config.json", [](json& config) { config["cross_attention_dim"] = 20; });
  expect_refusal(ErrorCode::kMismatch, {"hidden_size: expected 20", "found 16"});
}

TEST_F(DiffusersFolder, MissingFilesAreNamed) {
  std::filesystem::remove(path(kUnetWeights));
  spit(path("/unet/diffusion_pytorch_model.bin"), "");
  expect_refusal(ErrorCode::kNotFound, {kUnetWeights, "a .bin file must be converted first"});
  std::filesystem::remove(path("/tokenizer/merges.txt"));
  expect_refusal(ErrorCode::kNotFound, {"merges.txt"});
}

TEST_F(DiffusersFolder, SpoiltTokenizersAreRefused) {
  edit("/tokenizer/tokenizer_config.json", [](json& config) {
    config["do_lower_case"] = false;
    config["model_max_length"] = 1;
  });
  expect_refusal(ErrorCode::kConfig, {"tokenizer_config.json", "/do_lower_case", "/model_max_length"});
  edit("/tokenizer/tokenizer_config.json", [](json& config) {
    config["do_lower_case"] = true;
    config["model_max_length"] = 77;
  });
  edit("/tokenizer/vocab.json", [](json& vocabulary) { vocabulary["!"] = 1; });
  expect_refusal(ErrorCode::kCorrupt, {"vocab.json", "an id of its own, found 1 twice"});
}

TEST_F(DiffusersFolder, PaddingOfStableDiffusion2IsRead) {
  edit("/tokenizer/special_tokens_map.json", [](json& specials) { specials["pad_token"] = "!"; });
  EXPECT_EQ(load_clip_tokenizer(path("/tokenizer"))->encode("").back(), 0);
}

// Which spelling of an end's name wins, as observed of transformers 5.24.0.
TEST_F(DiffusersFolder, MarksOfTheEndsAreReadAsTheReferenceDoes) {
  const auto token = [](const std::string& content, bool normalized) {
    return json{{"__type", "AddedToken"}, {"content", content}, {"lstrip", false}, {"normalized", normalized}, {"rstrip", false}, {"single_word", false}};
  };
  const std::string begin = "<|startoftext|>", end = "<|endoftext|>";
  const auto marks = [&] {
    const auto options = load_clip_tokenizer(path("/tokenizer"))->options();
    return std::pair(options.begin_normalized, options.end_normalized);
  };
  EXPECT_EQ(marks(), std::pair(false, false));
  // As published with Stable Diffusion 1.5: the bare padding wins over the marked end.
  edit("/tokenizer/special_tokens_map.json", [&](json& specials) {
    specials = {{"bos_token", token(begin, true)}, {"eos_token", token(end, true)}, {"unk_token", token(end, true)}, {"pad_token", end}};
  });
  EXPECT_EQ(marks(), std::pair(true, false));
  edit("/tokenizer/special_tokens_map.json", [&](json& specials) { specials["eos_token"] = end; });
  EXPECT_EQ(marks(), std::pair(true, true));  // end, marked unknown; the padding repeats the first
  edit("/tokenizer/tokenizer_config.json", [&](json& config) {
    const int last = 512 + static_cast<int>(kTinyMerges);
    config["added_tokens_decoder"] = {{std::to_string(last), token(begin, false)}, {std::to_string(last + 1), token(end, true)}};
  });
  EXPECT_EQ(marks(), std::pair(false, true));  // and the map is not read
  edit("/tokenizer/tokenizer_config.json", [&](json& config) { config["added_tokens_decoder"]["7"] = token(end, true); });
  const auto error = error_of([&] { load_clip_tokenizer(path("/tokenizer")); });
  ASSERT_TRUE(error);
  EXPECT_NE(error->message.find("/added_tokens_decoder/7"), std::string::npos) << error->message;
}

// Tiny weights under the names of the original code, in one file.
TEST_F(DiffusersFolder, OneFileOfTheOriginalCodeIsRead) {
  const std::string file = path("/ldm.safetensors");
  write_ldm_file(copy_.path(), file);
  const SdPipeline made = tiny_sd(3), read = load_ldm_file(file, copy_.path());
  expect_equal(made.denoiser->module(), read.denoiser->module());
  expect_equal(*made.vae, *read.vae);
  expect_equal(*made.text_encoder, *read.text_encoder);

  // Parts on their own: the same content under the same digest, whatever file it came from.
  SdNetwork network{made.denoiser->unet()->config(), made.denoiser->config(), {copy_.path(), "", ""}};
  const SdPipeline of_folder = load_other_parts(network);
  EXPECT_EQ(of_folder.denoiser, nullptr);
  expect_equal(*of_folder.vae, *made.vae);
  network.pipeline.path = file;
  network.pipeline.like = copy_.path();
  const SdPipeline of_file = load_other_parts(network);  // refuses another digest
  EXPECT_EQ(text_encoder_sha256(of_file), text_encoder_sha256(of_folder));
  const SdPipeline alone = load_pipeline(network.pipeline, SdParts::kDenoiser);
  EXPECT_TRUE(alone.vae.is_empty() && alone.text_encoder.is_empty());
  network.pipeline.sha256 = std::string(64, '0');
  EXPECT_EQ(error_of([&] { load_other_parts(network); })->code, ErrorCode::kMismatch);
  const SdNetwork back = sd_network_from_json(to_json(network), "test");
  EXPECT_EQ(to_json(back), to_json(network));

  const std::string foreign = "control_model.input_blocks.0.0.weight";
  write_ldm_file(copy_.path(), file, foreign);
  const auto error = error_of([&] { load_ldm_file(file, copy_.path()); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kMismatch);
  EXPECT_NE(error->message.find(foreign), std::string::npos) << error->message;
}

}  // namespace
}  // namespace onestep
