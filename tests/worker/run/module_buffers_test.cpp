#include "worker/run/module_buffers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/files.h"
#include "worker/models/model_factory.h"

namespace onestep {
namespace {

NetworkSpec fourier_network() {
  NetworkSpec spec;
  spec.network_class = "song_unet";
  spec.image_size = 8;
  spec.pixel_unshuffle = 1;
  spec.model_channels = 8;
  spec.channel_mult = {1, 1};
  spec.embedding_type = "fourier";
  return spec;
}

TEST(ModuleBuffers, GoThroughTheManifestUnchanged) {
  const auto net = make_denoiser(fourier_network(), 1), other = make_denoiser(fourier_network(), 2);
  const auto json = nlohmann::json::parse(buffers_to_json(net->module()).dump());
  EXPECT_EQ(json.size(), 5u);  // the frequencies, and two filters in each resampling block
  load_buffers(other->module(), json, "manifest.json");
  for (const auto& item : net->module().named_buffers()) {
    EXPECT_TRUE(torch::equal(item.value(), other->module().named_buffers()[item.key()])) << item.key();
  }
  EXPECT_EQ(buffers_to_json(make_denoiser({}, 0)->module()), nlohmann::json::object());
}

TEST(ModuleBuffers, WhatDoesNotFitIsRefused) {
  const auto net = make_denoiser(fourier_network(), 1);
  const auto refused = [&](const nlohmann::json& json) {
    const auto error = error_of([&] { load_buffers(net->module(), json, "manifest.json"); });
    return error && error->code == ErrorCode::kMismatch ? error->message : "";
  };
  const auto good = buffers_to_json(net->module());
  EXPECT_EQ(refused(good), "");
  auto json = good;
  json.erase("model.map_noise.freqs");
  EXPECT_THAT(refused(json), testing::HasSubstr("expected \"model.map_noise.freqs\" of 4 numbers, found nothing"));
  json = good;
  json["model.map_noise.freqs"].push_back(1.0);
  EXPECT_THAT(refused(json), testing::HasSubstr("of 4 numbers, found 5"));
  json = good;
  json["model.other"] = {1.0};
  EXPECT_THAT(refused(json), testing::HasSubstr("expected none named \"model.other\""));
  json = good;
  json["model.map_noise.freqs"][0] = "x";
  EXPECT_THAT(refused(json), testing::HasSubstr("expected numbers, found string"));
}

}  // namespace
}  // namespace onestep
