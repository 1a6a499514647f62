// The Frechet distance at Inception's 2,048 dimensions: of full rank, and of fewer images than dimensions.
#include <gtest/gtest.h>

#include <fstream>

#include "support/keyed_features.h"
#include "worker/metrics/frechet.h"
#include "worker/metrics/frechet_parity.h"

namespace onestep {
namespace {

class Frechet2048 : public testing::TestWithParam<std::size_t> {};

TEST_P(Frechet2048, IsThePackages) {
  std::ifstream file(ONESTEP_SOURCE_DIR "/tests/golden/frechet_2048.json");
  const auto document = nlohmann::json::parse(file);
  const auto& item = document.at("fid").at(GetParam());
  const std::string name = "fid." + item.at("name").get<std::string>();
  const auto stats = [&](const char* side, std::size_t index, double shift) {
    return feature_stats(keyed_features(name + side, item.at("rows").at(index), item.at("columns"), shift));
  };
  record_frechet(document.at("versions"), item, frechet_distance(stats(".a", 0, 0), stats(".b", 1, 0.05)));
}

INSTANTIATE_TEST_SUITE_P(Ranks, Frechet2048, testing::Values(0, 1));

}  // namespace
}  // namespace onestep
