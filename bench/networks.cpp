// Forward and backward of each network, timed on one thread; bench/networks.py has the other side.
//
//   networks --list                                 the names of the cases, one a line
//   networks --describe NAME                        one JSON object: the class, its config and inputs, for the twin to build
//   networks --time NAME --seconds 5                prints one JSON object: processor seconds a pass, output, norms of all gradients
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <ctime>
#include <functional>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "common/build_info.h"
#include "common/error.h"
#include "run_main.h"
#include "worker/models/autoencoder_kl.h"
#include "worker/models/clip_text.h"
#include "worker/models/initialize.h"
#include "worker/models/model_factory.h"
#include "worker/models/sd_unet.h"
#include "worker/models/tiny_autoencoder.h"
#include "worker/models/vgg_lpips.h"
#include "worker/tensors/heap.h"
#include "worker/tensors/torch.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr std::uint64_t kSeed = 1;

torch::Tensor drawn(const std::string& name, at::IntArrayRef shape, double bound = std::sqrt(3.0)) {
  torch::Tensor tensor = torch::empty(shape);
  fill_keyed_uniform(tensor, kSeed, name, bound);
  return tensor;
}

// Activations of order 1; the twin has the same rule.
double bound_of(const std::string& name, const torch::Tensor& tensor) {
  if (tensor.dim() == 1) return name.ends_with("weight") ? 0.5 : 0.1;
  return std::sqrt(3.0 * static_cast<double>(tensor.size(0)) / static_cast<double>(tensor.numel()));
}

void fill(torch::nn::Module& network) {
  const torch::NoGradGuard no_grad;
  for (auto& item : network.named_parameters()) {
    fill_keyed_uniform(item.value(), kSeed, item.key(), bound_of(item.key(), item.value()));
    if (item.value().dim() == 1 && item.key().ends_with("weight")) item.value().add_(1);
  }
  for (auto& item : network.named_buffers()) {
    if (item.key().ends_with("freqs")) fill_keyed_uniform(item.value(), kSeed, item.key(), 16.0);
  }
}

// A network, what it is given, and what is differentiated beside its parameters.
struct Network {
  std::vector<std::pair<std::string, torch::Tensor>> leaves;  // inputs and parameters, whose gradients are compared
  std::function<torch::Tensor()> forward;
};

struct Case {
  json description;
  std::function<Network()> make;
};

void add_parameters(Network& network, const torch::nn::Module& module) {
  for (const auto& item : module.named_parameters()) network.leaves.emplace_back(item.key(), item.value());
}

torch::Tensor leaf(Network& network, const std::string& name, at::IntArrayRef shape, double bound = std::sqrt(3.0)) {
  network.leaves.emplace_back("input." + name, drawn("input." + name, shape, bound).requires_grad_(true));
  return network.leaves.back().second;
}

Case edm_case(NetworkSpec spec, std::int64_t batch) {
  return {{{"class", spec.network_class}, {"config", to_json(spec)}, {"batch", batch}}, [spec, batch] {
            const std::shared_ptr<Denoiser> net = make_denoiser(spec, 0);
            fill(net->module());
            Network network;
            const auto x = leaf(network, "x", {batch, spec.image_channels, spec.image_size, spec.image_size});
            add_parameters(network, net->module());
            const auto sigma = torch::full({batch}, 1.5f);
            Condition condition;
            if (spec.label_dim > 0) condition.labels = torch::arange(batch).remainder(spec.label_dim);
            network.forward = [=] { return net->denoise(x, sigma, condition); };
            return network;
          }};
}

NetworkSpec song(const char* encoder, const char* embedding, std::int64_t channels) {
  NetworkSpec spec;
  spec.network_class = "song_unet";
  spec.image_size = 32;
  spec.image_channels = 3;
  spec.pixel_unshuffle = 1;
  spec.model_channels = channels;
  spec.channel_mult = {2, 2, 2};
  spec.num_blocks = 2;
  spec.attention_resolutions = {16};
  spec.label_dim = 10;
  spec.encoder_type = encoder;
  spec.embedding_type = embedding;
  if (spec.encoder_type == "residual") {
    spec.channel_mult_noise = 2;
    spec.resample_filter = {1, 3, 3, 1};
  }
  return spec;
}

NetworkSpec adm() {
  NetworkSpec spec;
  spec.network_class = "adm_unet";
  spec.image_size = 32;
  spec.image_channels = 3;
  spec.pixel_unshuffle = 1;
  spec.model_channels = 64;
  spec.channel_mult = {1, 2, 3};
  spec.num_blocks = 2;
  spec.attention_resolutions = {16, 8};
  spec.label_dim = 10;
  return spec;
}

Case unet_case() {
  SdUnetConfig config;
  config.sample_size = 32;
  config.block_out_channels = {64, 128, 256, 256};
  return {{{"class", "sd_unet"}, {"config", to_diffusers_json(config)}, {"side", 32}, {"batch", 2}}, [config] {
            SdUnet net(config);
            fill(*net);
            Network network;
            const auto x = leaf(network, "x", {2, 4, 32, 32}), text = leaf(network, "text", {2, 77, config.cross_attention_dim});
            add_parameters(network, *net);
            network.forward = [=]() mutable { return net(x, torch::full({2}, 421), text); };
            return network;
          }};
}

Case autoencoder_case(bool is_encoder) {
  AutoencoderKlConfig config;
  config.sample_size = 64;
  config.block_out_channels = {64, 128, 256, 256};
  const char* half = is_encoder ? "autoencoder_kl, encoder" : "autoencoder_kl, decoder";
  return {{{"class", half}, {"config", to_diffusers_json(config)}, {"batch", 1}},
          [config, is_encoder] {
            AutoencoderKl net(config);
            fill(*net);
            Network network;
            const auto x = is_encoder ? leaf(network, "images", {1, 3, 64, 64}) : leaf(network, "z", {1, 4, 8, 8});
            add_parameters(network, *net);
            network.forward = [=]() mutable {
              if (!is_encoder) return net->decode(x);
              const auto posterior = net->encode(x);
              return torch::cat({posterior.mean, posterior.logvar}, 1);
            };
            return network;
          }};
}

Case tiny_case() {
  const TinyAutoencoderConfig config;
  return {{{"class", "tiny_autoencoder"}, {"config", to_diffusers_json(config)}, {"batch", 2}}, [config] {
            TinyAutoencoder net(config);
            fill(*net);
            Network network;
            const auto x = leaf(network, "z", {2, 4, 8, 8});
            add_parameters(network, *net);
            network.forward = [=]() mutable { return net->decode(x); };
            return network;
          }};
}

Case clip_case() {
  ClipTextConfig config;
  config.vocab_size = 1000;  // of the 49,408: the table's gradient is a copy of zeros on both sides
  return {{{"class", "clip_text"}, {"config", to_transformers_json(config, "float32")}, {"batch", 1}}, [config] {
            ClipText net(config);
            fill(*net);
            Network network;
            add_parameters(network, *net);
            const auto ids = torch::arange(77).mul(13).remainder(config.vocab_size).view({1, 77});
            network.forward = [=]() mutable { return net(ids); };
            return network;
          }};
}

Case lpips_case() {
  return {{{"class", "vgg_lpips"}, {"config", json::object()}, {"batch", 2}}, [] {
            std::vector<torch::Tensor> kept;
            std::vector<TensorView> views;
            for (const ExpectedTensor& tensor : lpips_tensors()) {
              torch::Tensor weight = torch::empty(tensor.shape);
              const bool is_lin = tensor.name.starts_with("lin");
              fill_keyed_uniform(weight, kSeed, tensor.name, is_lin ? 0.5 : bound_of(tensor.name, weight));
              kept.push_back(is_lin ? weight + 0.5 : weight);
              views.push_back({tensor.name, DType::kF32, tensor.shape,
                               {reinterpret_cast<const std::byte*>(kept.back().const_data_ptr<float>()), kept.back().nbytes()}});
            }
            LpipsSpec options;
            options.resize = 0;
            const auto lpips = std::make_shared<VggLpips>(views, "keyed", options);
            Network network;
            const auto x = leaf(network, "x", {2, 3, 64, 64}, 0.9), y = drawn("input.y", {2, 3, 64, 64}, 0.9);
            network.forward = [=] { return (*lpips)(x, y); };
            return network;
          }};
}

const std::map<std::string, Case>& cases() {
  static const std::map<std::string, Case> kCases = {
      {"song_unet_ddpmpp", edm_case(song("standard", "positional", 64), 2)},
      {"song_unet_ncsnpp", edm_case(song("residual", "fourier", 64), 2)},
      {"adm_unet", edm_case(adm(), 2)},
      {"sd_unet", unet_case()},
      {"autoencoder_kl_encoder", autoencoder_case(true)},
      {"autoencoder_kl_decoder", autoencoder_case(false)},
      {"tiny_autoencoder", tiny_case()},
      {"clip_text", clip_case()},
      {"vgg_lpips", lpips_case()},
  };
  return kCases;
}

const Case& case_of(const std::string& name) {
  const auto found = cases().find(name);
  if (found == cases().end()) throw Error(ErrorCode::kUsage, "networks: expected a name of --list, found " + name);
  return found->second;
}

// Of this process, one thread: a machine that others use too stretches the time on the wall, and this one far less.
double processor_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

// sum(output * probe) differentiated; the best pass of all within `seconds`, at least three.
void time_network(const std::string& name, double seconds) {
  keep_freed_memory();  // as in the worker
  at::set_num_threads(1);
  Network network = case_of(name).make();
  const auto output = network.forward();
  const auto probe = drawn("probe", output.sizes());
  json norms = json::object();
  (output * probe).sum().backward();
  for (const auto& [key, tensor] : network.leaves) {
    if (tensor.grad().defined()) norms[key] = tensor.grad().to(torch::kFloat64).norm().item<double>();
  }
  double best = 0;
  std::int64_t passes = 0;
  for (const double begin = processor_seconds(); passes < 3 || processor_seconds() - begin < seconds; ++passes) {
    for (auto& [key, tensor] : network.leaves) tensor.mutable_grad().reset();
    const double start = processor_seconds();
    (network.forward() * probe).sum().backward();
    const double elapsed = processor_seconds() - start;
    best = passes == 0 ? elapsed : std::min(best, elapsed);
  }
  const auto flat = output.detach().contiguous().flatten();
  const auto stride = std::max<std::int64_t>(1, flat.numel() / 1000);
  const auto values = flat.slice(0, 0, flat.numel(), stride).contiguous();
  const float* first = values.const_data_ptr<float>();
  std::cout << json{{"seconds", best}, {"passes", passes}, {"output", std::vector<float>(first, first + values.numel())},
                    {"gradient_norms", norms}, {"commit", build_commit()}}.dump() << std::endl;
}

int networks_main(int argc, char** argv) {
  std::string describe, time;
  double seconds = 5;
  bool list = false;
  CLI::App app("Forward and backward of each network on the CPU, timed.", "networks");
  app.add_flag("--list", list, "print the names of the cases");
  app.add_option("--describe", describe, "print what the twin has to build");
  app.add_option("--time", time, "time this case");
  app.add_option("--seconds", seconds)->check(CLI::Range(0.1, 600.0));
  CLI11_PARSE(app, argc, argv);
  if (list) {
    for (const auto& [name, item] : cases()) std::cout << name << "\n";
  }
  if (!describe.empty()) std::cout << case_of(describe).description.dump() << std::endl;
  if (!time.empty()) time_network(time, seconds);
  return 0;
}

}  // namespace
}  // namespace onestep

int main(int argc, char** argv) { return onestep::run_main("networks", onestep::networks_main, argc, argv); }
