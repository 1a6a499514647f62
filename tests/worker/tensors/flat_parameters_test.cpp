#include "worker/tensors/flat_parameters.h"

#include <gtest/gtest.h>
#include <torch/nn/modules/linear.h>

#include "common/durable_file.h"
#include "common/error.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

struct NetImpl : torch::nn::Module {
  NetImpl() {
    a = register_module("a", torch::nn::Linear(3, 5));
    b = register_module("b", torch::nn::Linear(5, 2));
  }
  torch::Tensor forward(const torch::Tensor& x) { return b(torch::tanh(a(x))); }
  torch::nn::Linear a{nullptr}, b{nullptr};
};
TORCH_MODULE(Net);

TEST(FlatParameters, ViewsStartAtMultiplesAndLengthFitsEveryLegalRankCount) {
  Net net;
  const FlatParameters flat(*net, 8, true);
  for (const FlatView& view : flat.views()) EXPECT_EQ(view.offset % kFlatAlignment, 0) << view.name;
  EXPECT_EQ(flat.length() % (8 * kFlatAlignment), 0);
}

TEST(FlatParameters, KeepsValuesAndSharesMemoryWithTheModule) {
  Net net;
  const auto before = net->a->weight.detach().clone();
  FlatParameters flat(*net, 1, true);
  EXPECT_TRUE(torch::equal(before, net->a->weight.detach()));
  flat.values().fill_(2);
  EXPECT_EQ(net->b->bias[1].item<float>(), 2);
}

// The slow twin is a module that owns its parameters.
TEST(FlatParameters, BackwardFillsTheFlatGradientAndZeroesWithIt) {
  Net plain, flat_net;
  {
    torch::NoGradGuard no_grad;
    for (const auto& item : plain->named_parameters()) flat_net->named_parameters()[item.key()].copy_(item.value());
  }
  FlatParameters flat(*flat_net, 4, true);
  const auto x = torch::ones({7, 3});
  plain(x).square().sum().backward();
  for (int repeat = 0; repeat < 2; ++repeat) {
    flat_net(x).square().sum().backward();
    for (const FlatView& view : flat.views()) {
      const auto expected = plain->named_parameters()[view.name].grad().flatten();
      EXPECT_TRUE(torch::equal(flat.gradient().narrow(0, view.offset, view.length), expected)) << view.name;
    }
    flat.zero_gradient();
    EXPECT_EQ(plain->a->weight.grad().numel(), flat_net->a->weight.grad().numel());
    EXPECT_EQ(flat_net->a->weight.grad().abs().sum().item<float>(), 0);
  }
}

TEST(LoadParameters, ListsEveryProblemAtOnce) {
  const TempFolder folder;
  Net net;
  const auto good = torch::ones({5, 3});
  const auto wrong = torch::ones({4});
  const auto bytes = [](const torch::Tensor& t) {
    return std::span<const std::byte>(static_cast<const std::byte*>(t.const_data_ptr()), t.nbytes());
  };
  const std::string path = folder.path() + "/m.safetensors";
  write_safetensors(path, {{"a.weight", DType::kF32, {5, 3}, bytes(good)},
                           {"a.bias", DType::kF32, {4}, bytes(wrong)},
                           {"c.bias", DType::kF32, {4}, bytes(wrong)}}, {});
  const auto before = net->a->weight.detach().clone();
  try {
    load_parameters(*net, SafetensorsFile(path));
    FAIL() << "loaded a file that doesn't fit";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kMismatch);
    const std::string text = error.what();
    EXPECT_NE(text.find("a.bias: expected F32 [5], found F32 [4]"), std::string::npos) << text;
    EXPECT_NE(text.find("b.weight: missing, expected F32 [2, 5]"), std::string::npos) << text;
    EXPECT_NE(text.find("b.bias: missing"), std::string::npos) << text;
    EXPECT_NE(text.find("c.bias: unexpected"), std::string::npos) << text;
  }
  EXPECT_TRUE(torch::equal(before, net->a->weight.detach()));
}

TEST(LoadParameters, ShardsLoadAsOneFileDoes) {
  const TempFolder folder;
  Net saved, loaded;
  const auto tensors = named_tensors(*saved);
  ASSERT_EQ(tensors.size(), 4u);
  write_safetensors(folder.path() + "/1.safetensors", {tensors[0], tensors[2]}, {});
  write_safetensors(folder.path() + "/2.safetensors", {tensors[1], tensors[3]}, {});
  const auto entry = [&](std::size_t i, const char* file) { return '"' + tensors[i].name + "\":\"" + file + ".safetensors\""; };
  const std::string index = folder.path() + "/m.safetensors.index.json";
  write_file_durably(index, "{\"weight_map\":{" + entry(0, "1") + "," + entry(1, "2") + "," + entry(2, "1") + "," + entry(3, "2") + "}}");
  load_parameters(*loaded, TensorFiles(index));
  for (const auto& item : saved->named_parameters()) {
    EXPECT_TRUE(torch::equal(item.value(), loaded->named_parameters()[item.key()])) << item.key();
  }
}

}  // namespace
}  // namespace onestep
