// The published SD 1.5 networks, filled by keyed draws on both sides, against diffusers and transformers at 1,000 values each.
#include <gtest/gtest.h>

#include "support/golden.h"
#include "worker/models/autoencoder_kl.h"
#include "worker/models/clip_text.h"
#include "worker/models/sd_unet.h"
#include "worker/models/tiny_autoencoder.h"

namespace onestep {
namespace {

class SdProbes : public testing::Test {
 protected:
  // fp32 against fp32: sums of up to 23,040 terms in another order, over about two hundred layers: 1e-5 of the norm; moments alike.
  void expect(const std::string& name, const torch::Tensor& output) {
    const auto flat = output.contiguous().flatten();
    const auto values = flat.index_select(0, golden_tensor(golden_, name + ".positions"));
    EXPECT_LE(relative_error(values, golden_tensor(golden_, name + ".values")), 1e-5) << name;
    const auto exact = flat.to(torch::kFloat64);
    const auto moments = torch::stack({exact.mean(), exact.std(/*unbiased=*/false), exact.norm()});
    EXPECT_LE(relative_error(moments, golden_tensor(golden_, name + ".moments")), 1e-5) << name;
  }

  const SafetensorsFile golden_{ONESTEP_SOURCE_DIR "/tests/golden/sd_probes.safetensors"};
  const torch::NoGradGuard no_grad_;
};

TEST_F(SdProbes, Unet) {
  SdUnet network{SdUnetConfig{}};
  fill_golden(*network);
  expect("unet", network(golden_draw("input.x", {1, 4, 32, 32}), torch::tensor({999}), golden_draw("input.text", {1, 77, 768})));
}

TEST_F(SdProbes, AutoencoderKl) {
  AutoencoderKl network{AutoencoderKlConfig{}};
  fill_golden(*network);
  const auto posterior = network->encode(golden_draw("input.images", {1, 3, 128, 128}, 1.0));
  expect("vae.mean", posterior.mean);
  expect("vae.logvar", posterior.logvar);
  expect("vae.images", network->decode(golden_draw("input.z", {1, 4, 16, 16})));
}

TEST_F(SdProbes, TinyAutoencoder) {
  TinyAutoencoder network{TinyAutoencoderConfig{}};
  fill_golden(*network);
  expect("taesd.latents", network->encode(golden_draw("input.images", {1, 3, 128, 128}, 1.0)));
  expect("taesd.images", network->decode(golden_draw("input.z", {1, 4, 16, 16})));
}

TEST_F(SdProbes, ClipText) {
  ClipText network{ClipTextConfig{}};
  fill_golden(*network);
  expect("clip", network(golden_tensor(golden_, "clip.ids")));
}

}  // namespace
}  // namespace onestep
