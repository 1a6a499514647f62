#include "worker/run/diffusers_folder.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "support/files.h"
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
  const auto theirs = [](const std::string& name) {
    // The tiny U-Net has one resnet a level; these few rules are written from the original's structure.
    static const std::vector<std::pair<std::string, std::string>> kModules = {
        {"conv_in.", "input_blocks.0.0."}, {"time_embedding.linear_1.", "time_embed.0."}, {"time_embedding.linear_2.", "time_embed.2."},
        {"down_blocks.0.resnets.0.", "input_blocks.1.0."}, {"down_blocks.0.attentions.0.", "input_blocks.1.1."},
        {"down_blocks.0.downsamplers.0.conv.", "input_blocks.2.0.op."}, {"down_blocks.1.resnets.0.", "input_blocks.3.0."},
        {"mid_block.resnets.0.", "middle_block.0."}, {"mid_block.attentions.0.", "middle_block.1."}, {"mid_block.resnets.1.", "middle_block.2."},
        {"up_blocks.0.resnets.0.", "output_blocks.0.0."}, {"up_blocks.0.resnets.1.", "output_blocks.1.0."},
        {"up_blocks.0.upsamplers.0.conv.", "output_blocks.1.1.conv."}, {"up_blocks.1.resnets.0.", "output_blocks.2.0."},
        {"up_blocks.1.attentions.0.", "output_blocks.2.1."}, {"up_blocks.1.resnets.1.", "output_blocks.3.0."},
        {"up_blocks.1.attentions.1.", "output_blocks.3.1."}, {"conv_norm_out.", "out.0."}, {"conv_out.", "out.2."}};
    static const std::vector<std::pair<std::string, std::string>> kResnet = {
        {"norm1.", "in_layers.0."}, {"conv1.", "in_layers.2."}, {"time_emb_proj.", "emb_layers.1."}, {"norm2.", "out_layers.0."},
        {"conv2.", "out_layers.3."}, {"conv_shortcut.", "skip_connection."}};
    for (const auto& [ours, original] : kModules) {
      if (!name.starts_with(ours)) continue;
      const std::string rest = name.substr(ours.size());
      if (ours.find("resnets") == std::string::npos) return "model.diffusion_model." + original + rest;
      for (const auto& [part, theirs_part] : kResnet) {
        if (rest.starts_with(part)) return "model.diffusion_model." + original + theirs_part + rest.substr(part.size());
      }
    }
    return std::string();
  };
  const auto vae_theirs = [](std::string name) {
    const std::vector<std::pair<std::string, std::string>> rules = {
        {"encoder.down_blocks.", "encoder.down."}, {"decoder.up_blocks.0.", "decoder.up.1."}, {"decoder.up_blocks.1.", "decoder.up.0."},
        {".mid_block.resnets.0.", ".mid.block_1."}, {".mid_block.resnets.1.", ".mid.block_2."}, {".resnets.", ".block."},
        {".downsamplers.0.", ".downsample."}, {".upsamplers.0.", ".upsample."}, {"conv_shortcut", "nin_shortcut"},
        {".mid_block.attentions.0.group_norm", ".mid.attn_1.norm"}, {".mid_block.attentions.0.to_q", ".mid.attn_1.q"},
        {".mid_block.attentions.0.to_k", ".mid.attn_1.k"}, {".mid_block.attentions.0.to_v", ".mid.attn_1.v"},
        {".mid_block.attentions.0.to_out.0", ".mid.attn_1.proj_out"}, {"conv_norm_out", "norm_out"}};
    for (const auto& [ours, original] : rules) {
      const std::size_t place = name.find(ours);
      if (place != std::string::npos) name.replace(place, ours.size(), original);
    }
    return "first_stage_model." + name;
  };
  const SafetensorsFile unet(path(kUnetWeights)), vae(path("/vae/diffusion_pytorch_model.safetensors")),
      text(path("/text_encoder/model.safetensors"));
  std::vector<TensorView> all;
  for (TensorView tensor : unet.tensors()) {
    tensor.name = theirs(tensor.name);
    ASSERT_FALSE(tensor.name.empty());
    all.push_back(tensor);
  }
  for (TensorView tensor : vae.tensors()) {
    const bool attention = tensor.name.find(".to_") != std::string::npos && tensor.shape.size() == 2;
    if (attention) tensor.shape.insert(tensor.shape.end(), {1, 1});
    tensor.name = vae_theirs(tensor.name);
    all.push_back(tensor);
  }
  for (TensorView tensor : text.tensors()) {
    tensor.name.insert(0, "cond_stage_model.transformer.");
    all.push_back(tensor);
  }
  const std::string file = path("/ldm.safetensors");
  write_safetensors(file, all, {});
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

  all.front().name = "control_model.input_blocks.0.0.weight";
  write_safetensors(file, all, {});
  const auto error = error_of([&] { load_ldm_file(file, copy_.path()); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kMismatch);
  EXPECT_NE(error->message.find("control_model.input_blocks.0.0.weight"), std::string::npos) << error->message;
}

}  // namespace
}  // namespace onestep
