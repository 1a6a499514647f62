#include "worker/models/initialize.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

nlohmann::json golden() {
  std::ifstream file(ONESTEP_SOURCE_DIR "/tests/golden/keyed_fill.json");
  return nlohmann::json::parse(file);
}

// tools/golden/keyed_fill.py, NumPy: the same bits.
TEST(Initialize, KeyedUniformIsTheNumPyTwins) {
  const auto document = golden();
  for (const auto& json : document.at("uniform")) {
    torch::Tensor tensor = torch::empty(json.at("shape").get<std::vector<std::int64_t>>());
    fill_keyed_uniform(tensor, json.at("seed"), json.at("name"), json.at("bound"));
    const auto values = json.at("values").get<std::vector<float>>();
    EXPECT_TRUE(torch::equal(tensor.flatten(), torch::tensor(values))) << json.at("name");
  }
}

// fp64 there, fp32 polynomials here: equal up to fp32 rounding.
TEST(Initialize, KeyedNormalIsTheNumPyTwins) {
  const auto document = golden();
  for (const auto& json : document.at("normal")) {
    const auto values = json.at("values").get<std::vector<float>>();
    const auto found = keyed_normal({json.at("seed"), RandomStream{json.at("stream").get<std::uint32_t>()}, json.at("step")},
                                    json.at("sample").get<std::int64_t>(), 1, {static_cast<std::int64_t>(values.size())});
    EXPECT_TRUE(torch::allclose(found[0], torch::tensor(values), 1e-5, 2e-6));
  }
}

}  // namespace
}  // namespace onestep
