#include "worker/models/inception.h"

#include <algorithm>
#include <utility>

#include "common/error.h"

namespace onestep {
namespace {

constexpr double kNormEpsilon = 1e-3;

struct Layer {
  std::string name;        // pytorch-fid's
  std::string graph_name;  // TensorFlow's node, dots for slashes
  std::int64_t in = 0, out = 0, height = 1, width = 1, stride = 1;
  bool padded = false;  // (k - 1) / 2 on each side; else no padding
};

// Lists the layers of one block; `graph` is its node in TensorFlow's graph.
class BlockWriter {
 public:
  BlockWriter(std::vector<Layer>& layers, std::string name, std::string graph)
      : layers_(layers), name_(std::move(name)), graph_(std::move(graph)) {}

  void add(const char* name, const char* graph, std::int64_t in, std::int64_t out, std::int64_t height, std::int64_t width,
           std::int64_t stride = 1) {
    layers_.push_back({name_ + "." + name, graph_ + "." + graph, in, out, height, width, stride, stride == 1});
  }

 private:
  std::vector<Layer>& layers_;
  std::string name_, graph_;
};

void list_block_a(std::vector<Layer>& layers, const char* name, const char* graph, std::int64_t in, std::int64_t pool) {
  BlockWriter block(layers, name, graph);
  block.add("branch1x1", "conv", in, 64, 1, 1);
  block.add("branch5x5_1", "tower.conv", in, 48, 1, 1);
  block.add("branch5x5_2", "tower.conv_1", 48, 64, 5, 5);
  block.add("branch3x3dbl_1", "tower_1.conv", in, 64, 1, 1);
  block.add("branch3x3dbl_2", "tower_1.conv_1", 64, 96, 3, 3);
  block.add("branch3x3dbl_3", "tower_1.conv_2", 96, 96, 3, 3);
  block.add("branch_pool", "tower_2.conv", in, pool, 1, 1);
}

void list_block_b(std::vector<Layer>& layers, const char* name, const char* graph, std::int64_t in) {
  BlockWriter block(layers, name, graph);
  block.add("branch3x3", "conv", in, 384, 3, 3, 2);
  block.add("branch3x3dbl_1", "tower.conv", in, 64, 1, 1);
  block.add("branch3x3dbl_2", "tower.conv_1", 64, 96, 3, 3);
  block.add("branch3x3dbl_3", "tower.conv_2", 96, 96, 3, 3, 2);
}

void list_block_c(std::vector<Layer>& layers, const char* name, const char* graph, std::int64_t width) {
  constexpr std::int64_t kIn = 768, kOut = 192;
  BlockWriter block(layers, name, graph);
  block.add("branch1x1", "conv", kIn, kOut, 1, 1);
  block.add("branch7x7_1", "tower.conv", kIn, width, 1, 1);
  block.add("branch7x7_2", "tower.conv_1", width, width, 1, 7);
  block.add("branch7x7_3", "tower.conv_2", width, kOut, 7, 1);
  block.add("branch7x7dbl_1", "tower_1.conv", kIn, width, 1, 1);
  block.add("branch7x7dbl_2", "tower_1.conv_1", width, width, 7, 1);
  block.add("branch7x7dbl_3", "tower_1.conv_2", width, width, 1, 7);
  block.add("branch7x7dbl_4", "tower_1.conv_3", width, width, 7, 1);
  block.add("branch7x7dbl_5", "tower_1.conv_4", width, kOut, 1, 7);
  block.add("branch_pool", "tower_2.conv", kIn, kOut, 1, 1);
}

void list_block_d(std::vector<Layer>& layers, const char* name, const char* graph, std::int64_t in) {
  BlockWriter block(layers, name, graph);
  block.add("branch3x3_1", "tower.conv", in, 192, 1, 1);
  block.add("branch3x3_2", "tower.conv_1", 192, 320, 3, 3, 2);
  block.add("branch7x7x3_1", "tower_1.conv", in, 192, 1, 1);
  block.add("branch7x7x3_2", "tower_1.conv_1", 192, 192, 1, 7);
  block.add("branch7x7x3_3", "tower_1.conv_2", 192, 192, 7, 1);
  block.add("branch7x7x3_4", "tower_1.conv_3", 192, 192, 3, 3, 2);
}

void list_block_e(std::vector<Layer>& layers, const char* name, const char* graph, std::int64_t in) {
  BlockWriter block(layers, name, graph);
  block.add("branch1x1", "conv", in, 320, 1, 1);
  block.add("branch3x3_1", "tower.conv", in, 384, 1, 1);
  block.add("branch3x3_2a", "tower.mixed.conv", 384, 384, 1, 3);
  block.add("branch3x3_2b", "tower.mixed.conv_1", 384, 384, 3, 1);
  block.add("branch3x3dbl_1", "tower_1.conv", in, 448, 1, 1);
  block.add("branch3x3dbl_2", "tower_1.conv_1", 448, 384, 3, 3);
  block.add("branch3x3dbl_3a", "tower_1.mixed.conv", 384, 384, 1, 3);
  block.add("branch3x3dbl_3b", "tower_1.mixed.conv_1", 384, 384, 3, 1);
  block.add("branch_pool", "tower_2.conv", in, 192, 1, 1);
}

std::vector<Layer> list_layers() {
  std::vector<Layer> layers = {{"Conv2d_1a_3x3", "conv", 3, 32, 3, 3, 2, false},
                               {"Conv2d_2a_3x3", "conv_1", 32, 32, 3, 3, 1, false},
                               {"Conv2d_2b_3x3", "conv_2", 32, 64, 3, 3, 1, true},
                               {"Conv2d_3b_1x1", "conv_3", 64, 80, 1, 1, 1, false},
                               {"Conv2d_4a_3x3", "conv_4", 80, 192, 3, 3, 1, false}};
  list_block_a(layers, "Mixed_5b", "mixed", 192, 32);
  list_block_a(layers, "Mixed_5c", "mixed_1", 256, 64);
  list_block_a(layers, "Mixed_5d", "mixed_2", 288, 64);
  list_block_b(layers, "Mixed_6a", "mixed_3", 288);
  list_block_c(layers, "Mixed_6b", "mixed_4", 128);
  list_block_c(layers, "Mixed_6c", "mixed_5", 160);
  list_block_c(layers, "Mixed_6d", "mixed_6", 160);
  list_block_c(layers, "Mixed_6e", "mixed_7", 192);
  list_block_d(layers, "Mixed_7a", "mixed_8", 768);
  list_block_e(layers, "Mixed_7b", "mixed_9", 1280);
  list_block_e(layers, "Mixed_7c", "mixed_10", 2048);
  return layers;
}

// How a file calls a layer's tensors.
struct Naming {
  bool is_graph = false;  // NVIDIA's
  [[nodiscard]] std::string of(const Layer& layer, const char* ours, const char* graph) const {
    return is_graph ? "layers." + layer.graph_name + "." + graph : layer.name + "." + ours;
  }
  [[nodiscard]] std::string weight(const Layer& layer) const { return of(layer, "conv.weight", "weight"); }
  [[nodiscard]] std::string shift(const Layer& layer) const { return of(layer, "bn.bias", "beta"); }
  [[nodiscard]] std::string mean(const Layer& layer) const { return of(layer, "bn.running_mean", "mean"); }
  [[nodiscard]] std::string variance(const Layer& layer) const { return of(layer, "bn.running_var", "var"); }
  [[nodiscard]] std::string fc(const char* part) const { return std::string(is_graph ? "output." : "fc.") + part; }
};

std::vector<ExpectedTensor> expected_tensors(const Naming& naming) {
  std::vector<ExpectedTensor> tensors;
  for (const Layer& layer : list_layers()) {
    tensors.push_back({naming.weight(layer), {layer.out, layer.in, layer.height, layer.width}});
    if (!naming.is_graph) tensors.push_back({layer.name + ".bn.weight", {layer.out}});
    for (const std::string& name : {naming.shift(layer), naming.mean(layer), naming.variance(layer)}) {
      tensors.push_back({name, {layer.out}});
    }
  }
  tensors.push_back({naming.fc("weight"), {Inception::kNumClasses, Inception::kNumFeatures}});
  tensors.push_back({naming.fc("bias"), {Inception::kNumClasses}});
  return tensors;
}

torch::Tensor max_pool(const torch::Tensor& x) { return torch::max_pool2d(x, 3, 2); }

}  // namespace

std::vector<ExpectedTensor> inception_tensors() { return expected_tensors({}); }

Inception::Inception(const std::vector<TensorView>& tensors, const std::string& where) {
  torch::NoGradGuard no_grad;
  Naming naming;
  naming.is_graph = std::any_of(tensors.begin(), tensors.end(),
                                [](const TensorView& view) { return view.name == "layers.conv.weight"; });
  auto weights = take_weights(tensors, expected_tensors(naming), where,
                              [](const std::string& name) { return name.ends_with(".bn.num_batches_tracked"); });
  // norm(w x) = s (w x - mean) / sqrt(variance + epsilon) + shift, folded in fp64: one rounding a weight.
  for (const Layer& layer : list_layers()) {
    auto scale = (weights.at(naming.variance(layer)).to(torch::kFloat64) + kNormEpsilon).rsqrt();
    if (!naming.is_graph) scale = scale * weights.at(layer.name + ".bn.weight").to(torch::kFloat64);
    Convolution& convolution = convolutions_[layer.name];
    convolution.weight = (weights.at(naming.weight(layer)).to(torch::kFloat64) * scale.view({-1, 1, 1, 1}))
                             .to(torch::kFloat32)
                             .contiguous(torch::MemoryFormat::ChannelsLast);
    convolution.bias = (weights.at(naming.shift(layer)).to(torch::kFloat64) -
                        weights.at(naming.mean(layer)).to(torch::kFloat64) * scale)
                           .to(torch::kFloat32);
    convolution.stride = layer.stride;
    if (layer.padded) convolution.padding = {(layer.height - 1) / 2, (layer.width - 1) / 2};
  }
  fc_weight_ = weights.at(naming.fc("weight"));
  fc_bias_ = weights.at(naming.fc("bias"));
}

void Inception::move_to(const torch::Device& device, torch::ScalarType dtype) {
  for (auto& [name, c] : convolutions_) {
    c.weight = c.weight.to(device, dtype);
    c.bias = c.bias.to(device, dtype);
  }
  fc_weight_ = fc_weight_.to(device);
  fc_bias_ = fc_bias_.to(device);
}

torch::Tensor Inception::conv(const std::string& name, const torch::Tensor& x) const {
  const Convolution& c = convolutions_.at(name);
  return torch::conv2d(x, c.weight, c.bias, c.stride, c.padding).relu_();
}

torch::Tensor Inception::chain(const std::string& block, std::initializer_list<const char*> layers, torch::Tensor x) const {
  for (const char* layer : layers) x = conv(block + "." + layer, x);
  return x;
}

// relu(conv(mean(x))): a 1x1 convolution and a mean over pixels change places, and the mean then runs over fewer channels.
torch::Tensor Inception::pooled_branch(const std::string& block, const torch::Tensor& x) const {
  const Convolution& c = convolutions_.at(block + ".branch_pool");
  return torch::avg_pool2d(torch::conv2d(x, c.weight, c.bias), 3, 1, 1, /*ceil_mode=*/false, /*count_include_pad=*/false).relu_();
}

torch::Tensor Inception::block_a(const std::string& name, const torch::Tensor& x) const {
  return torch::cat({conv(name + ".branch1x1", x), chain(name, {"branch5x5_1", "branch5x5_2"}, x),
                     chain(name, {"branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"}, x), pooled_branch(name, x)},
                    1);
}

torch::Tensor Inception::block_b(const std::string& name, const torch::Tensor& x) const {
  return torch::cat({conv(name + ".branch3x3", x), chain(name, {"branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"}, x),
                     max_pool(x)},
                    1);
}

torch::Tensor Inception::block_c(const std::string& name, const torch::Tensor& x) const {
  return torch::cat(
      {conv(name + ".branch1x1", x), chain(name, {"branch7x7_1", "branch7x7_2", "branch7x7_3"}, x),
       chain(name, {"branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5"}, x),
       pooled_branch(name, x)},
      1);
}

torch::Tensor Inception::block_d(const std::string& name, const torch::Tensor& x) const {
  return torch::cat({chain(name, {"branch3x3_1", "branch3x3_2"}, x),
                     chain(name, {"branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"}, x), max_pool(x)},
                    1);
}

torch::Tensor Inception::block_e(const std::string& name, const torch::Tensor& x, bool is_max_pool) const {
  const auto single = conv(name + ".branch3x3_1", x);
  const auto twice = chain(name, {"branch3x3dbl_1", "branch3x3dbl_2"}, x);
  const auto pooled = is_max_pool ? conv(name + ".branch_pool", torch::max_pool2d(x, 3, 1, 1)) : pooled_branch(name, x);
  return torch::cat({conv(name + ".branch1x1", x), conv(name + ".branch3x3_2a", single), conv(name + ".branch3x3_2b", single),
                     conv(name + ".branch3x3dbl_3a", twice), conv(name + ".branch3x3dbl_3b", twice), pooled},
                    1);
}

torch::Tensor Inception::features(const torch::Tensor& x) const {
  if (x.dim() != 4 || x.size(1) != 3 || x.size(2) != kSide || x.size(3) != kSide || x.scalar_type() != torch::kFloat32) {
    throw Error(ErrorCode::kMismatch, "inception: expected fp32 images [B,3,299,299], found " +
                                          std::string(x.dtype().name()) + " " + c10::str(x.sizes()));
  }
  torch::NoGradGuard no_grad;
  const auto dtype = convolutions_.begin()->second.weight.scalar_type();
  auto h = conv("Conv2d_1a_3x3", x.to(dtype).contiguous(torch::MemoryFormat::ChannelsLast));  // (B, 32, 149, 149)
  h = max_pool(conv("Conv2d_2b_3x3", conv("Conv2d_2a_3x3", h)));                    // (B, 64, 73, 73)
  h = max_pool(conv("Conv2d_4a_3x3", conv("Conv2d_3b_1x1", h)));                    // (B, 192, 35, 35)
  for (const char* name : {"Mixed_5b", "Mixed_5c", "Mixed_5d"}) h = block_a(name, h);
  h = block_b("Mixed_6a", h);  // (B, 768, 17, 17)
  for (const char* name : {"Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"}) h = block_c(name, h);
  h = block_d("Mixed_7a", h);  // (B, 1280, 8, 8)
  h = block_e("Mixed_7b", h, /*is_max_pool=*/false);
  h = block_e("Mixed_7c", h, /*is_max_pool=*/true);  // (B, 2048, 8, 8)
  return h.to(torch::kFloat32).mean({2, 3});
}

torch::Tensor Inception::logits(const torch::Tensor& features) const {
  return torch::addmm(fc_bias_, features, fc_weight_.t());
}

torch::Tensor Inception::logits_without_bias(const torch::Tensor& features) const {
  return torch::mm(features, fc_weight_.t());
}

}  // namespace onestep
