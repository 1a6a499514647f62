// The published networks of Stable Diffusion 1.5 and 2.1, filled by keyed draws on both sides, against diffusers and transformers: 1,000
// values of each output and of some gradients, the norm of every parameter's gradient.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "support/golden.h"
#include "support/parity.h"
#include "worker/models/autoencoder_kl.h"
#include "worker/models/clip_text.h"
#include "worker/models/sd_unet.h"
#include "worker/models/tiny_autoencoder.h"

namespace onestep {
namespace {

using ProbedTensors = std::map<std::string, torch::Tensor>;

// fp32 against fp32: sums of up to 23,040 terms in another order, over about two hundred layers.
constexpr double kProbedForward = 1e-5, kProbedGradient = 1e-4;

// A bias of the keys shifts every score of a row alike: its gradient is rounding.
bool is_rounding(const std::string& key) { return key.ends_with("k_proj.bias") || key.ends_with("to_k.bias"); }

class SdProbes : public testing::Test {
 protected:
  static ProbedTensors leaves(ProbedTensors inputs) {
    for (auto& [name, input] : inputs) input.requires_grad_(true);
    return inputs;
  }

  ParityCase row(const std::string& component, const char* package, const std::string& inputs) {
    const auto versions = nlohmann::json::parse(golden_.metadata().at("versions"));
    return {component, versions_of(versions, {package}), "published size, " + inputs + ", fp32"};
  }

  void compare(const std::string& name, const torch::Tensor& found, const std::function<void(double, const std::string&)>& keep) {
    const auto flat = found.detach().contiguous().flatten();
    keep(relative_error(flat.index_select(0, golden_tensor(golden_, name + ".positions")), golden_tensor(golden_, name + ".values")), name);
    if (golden_.find(name + ".moments") == nullptr) return;
    const auto exact = flat.to(torch::kFloat64);
    const auto moments = torch::stack({exact.mean(), exact.std(/*unbiased=*/false), exact.norm()});
    keep(relative_error(moments, golden_tensor(golden_, name + ".moments")), "moments of " + name);
  }

  // `of` says which row a name belongs to: an output, "input.z" or a key.
  void expect(const std::string& prefix, const torch::nn::Module& network, const ProbedTensors& inputs, const ProbedTensors& outputs,
              const std::function<ParityRow&(const std::string&)>& of) {
    torch::Tensor loss = torch::zeros({});
    for (const auto& [name, output] : outputs) {
      compare(prefix + "." + name, output,
              [&](double error, const std::string& what) { of(name).forward(error, kProbedForward, what); });
      loss = loss + (output * golden_draw("probe." + name, output.sizes())).sum();
    }
    loss.backward();
    std::size_t num_probed = 0;
    const auto probe = [&](const std::string& key, const torch::Tensor& gradient) {
      const std::string name = prefix + ".grad." + key;
      if (golden_.find(name + ".values") == nullptr) return;
      ++num_probed;
      compare(name, gradient, [&](double error, const std::string& what) { of(key).backward(error, kProbedGradient, what); });
    };
    for (const auto& [name, input] : inputs) probe("input." + name, input.grad());
    const auto norms = golden_tensor(golden_, prefix + ".grad_norms");
    const auto parameters = network.named_parameters();
    ASSERT_EQ(static_cast<std::int64_t>(parameters.size()), norms.size(0));
    std::int64_t index = 0;
    for (const auto& item : parameters) {
      probe(item.key(), item.value().grad());
      const double norm = norms[index++].item<double>();
      if (is_rounding(item.key())) continue;
      const double found = item.value().grad().to(torch::kFloat64).norm().item<double>();
      of(item.key()).backward(std::abs(found - norm) / norm, kProbedGradient, "norm of " + item.key());
    }
    std::size_t num_stored = 0;
    for (const TensorView& view : golden_.tensors()) {
      if (view.name.starts_with(prefix + ".grad.") && view.name.ends_with(".values")) ++num_stored;
    }
    EXPECT_EQ(num_probed, num_stored);
  }

  void expect_unet(const std::string& prefix, const SdUnetConfig& config, std::int64_t side, const std::string& component) {
    SdUnet network(config);
    fill_golden(*network);
    const auto inputs = leaves({{"x", golden_draw("input.x", {1, 4, side, side})},
                                {"text", golden_draw("input.text", {1, 77, config.cross_attention_dim})}});
    ParityRow parity(row(component, "diffusers", "1 x 4 x " + std::to_string(side) + " x " + std::to_string(side) + ", text 1 x 77"));
    const auto raw = network(inputs.at("x"), torch::tensor({999}), inputs.at("text"));
    expect(prefix, *network, inputs, {{"raw", raw}}, [&](const std::string&) -> ParityRow& { return parity; });
  }

  void expect_clip(const std::string& prefix, const ClipTextConfig& config, const std::string& which) {
    ClipText network(config);
    fill_golden(*network);
    ParityRow parity(row("clip_text", "transformers", which + ", 1 x 77 tokens"));
    expect(prefix, *network, {}, {{"hidden", network(golden_tensor(golden_, "clip.ids"))}},
           [&](const std::string&) -> ParityRow& { return parity; });
  }

  const SafetensorsFile golden_{ONESTEP_SOURCE_DIR "/tests/golden/sd_probes.safetensors"};
};

TEST_F(SdProbes, Unet) { expect_unet("unet", SdUnetConfig{}, 32, "sd_unet, Stable Diffusion 1.5"); }

TEST_F(SdProbes, Unet21) {
  SdUnetConfig config;
  config.num_heads = {5, 10, 20, 20};
  config.cross_attention_dim = 1024;
  config.use_linear_projection = true;
  expect_unet("unet_21", config, 16, "sd_unet, Stable Diffusion 2.1");
}

TEST_F(SdProbes, AutoencoderKl) {
  AutoencoderKl network{AutoencoderKlConfig{}};
  fill_golden(*network);
  const auto inputs = leaves({{"images", golden_draw("input.images", {1, 3, 128, 128}, 1.0)}, {"z", golden_draw("input.z", {1, 4, 16, 16})}});
  const auto posterior = network->encode(inputs.at("images"));
  ParityRow encoder(row("autoencoder_kl, encoder", "diffusers", "1 x 3 x 128 x 128"));
  ParityRow decoder(row("autoencoder_kl, decoder", "diffusers", "1 x 4 x 16 x 16"));
  const auto is_of_decoder = [](const std::string& name) {
    return name.starts_with("decoder.") || name.starts_with("post_quant_conv.") || name == "input.z" || name == "images";
  };
  expect("vae", *network, inputs, {{"mean", posterior.mean}, {"logvar", posterior.logvar}, {"images", network->decode(inputs.at("z"))}},
         [&](const std::string& name) -> ParityRow& { return is_of_decoder(name) ? decoder : encoder; });
}

TEST_F(SdProbes, TinyAutoencoder) {
  TinyAutoencoder network{TinyAutoencoderConfig{}};
  fill_golden(*network);
  // Pictures on which no ReLU hangs on rounding.
  const auto inputs = leaves({{"images", golden_tensor(golden_, "taesd.input.images")}, {"z", golden_tensor(golden_, "taesd.input.z")}});
  ParityRow parity(row("tiny_autoencoder", "diffusers", "1 x 3 x 32 x 32 and 1 x 4 x 4 x 4"));
  expect("taesd", *network, inputs, {{"latents", network->encode(inputs.at("images"))}, {"images", network->decode(inputs.at("z"))}},
         [&](const std::string&) -> ParityRow& { return parity; });
}

TEST_F(SdProbes, ClipText) { expect_clip("clip", ClipTextConfig{}, "ViT-L/14"); }

TEST_F(SdProbes, ClipText21) {
  ClipTextConfig config;
  config.hidden_size = 1024;
  config.intermediate_size = 4096;
  config.num_hidden_layers = 23;
  config.num_attention_heads = 16;
  config.hidden_act = "gelu";
  expect_clip("clip_21", config, "ViT-H/14");
}

}  // namespace
}  // namespace onestep
