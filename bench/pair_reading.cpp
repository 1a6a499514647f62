// Rows of a pair set in the order of training, as fast as they come.
//
//   onestep-bench-pair-reading --write DIR [--rows 20000]
//   onestep-bench-pair-reading --time DIR --order FILE [--batch 64] [--batches 300]
//
// The second writes which rows it read, as int64, for the twin to read the same, and prints {rows_per_second, sums}.
#include <CLI/CLI.hpp>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "common/durable_file.h"
#include "common/shard_plan.h"
#include "run_main.h"
#include "worker/data/pair_reader.h"

namespace onestep {
namespace {

constexpr std::int64_t kRowsPerShard = 5000, kChannels = 3, kSide = 32;
const std::string kTeacher(64, 'a');

void write_set(const std::string& folder, std::int64_t count) {
  std::filesystem::create_directories(folder);
  PairSetManifest manifest;
  manifest.info = {.teacher_sha256 = kTeacher,
                   .sampler = "{}",
                   .steps = 18,
                   .seed = 1,
                   .channels = kChannels,
                   .height = kSide,
                   .width = kSide,
                   .count = count,
                   .rows_per_shard = kRowsPerShard,
                   .prompts_sha256 = ""};
  const auto row_elements = static_cast<std::size_t>(kChannels * kSide * kSide);
  for (const Shard& shard : plan_shards(count, kRowsPerShard, 1)) {
    PairRows rows;
    for (std::int64_t row = shard.first; row < shard.first + shard.count; ++row) {
      for (std::size_t e = 0; e < row_elements; ++e) {
        const auto value = static_cast<float>((row * 31 + static_cast<std::int64_t>(e) * 7) % 2003 - 1001) / 1001.F;
        rows.noise.push_back(value);
        rows.image.push_back(value / 2);
      }
      rows.label.push_back(row % 10);
      rows.index.push_back(row);
    }
    manifest.shards.push_back(write_pair_shard(folder, manifest.info, shard.index, 1, rows));
  }
  write_pair_manifest(folder, manifest);
}

nlohmann::json time_reading(const std::string& folder, const std::string& order, std::int64_t batch, std::int64_t batches) {
  const PairSet set(folder, kTeacher);
  PairReader reader(set, {.seed = 7, .global_count = batch, .count = batch});
  std::string bytes;
  double noise = 0, image = 0;
  std::int64_t labels = 0;
  const auto start = std::chrono::steady_clock::now();
  for (std::int64_t i = 0; i < batches; ++i) {
    const PairBatch read = reader.next();
    // One number of each row, so that what is compared costs little; training would copy the batch to a device here.
    noise += read.noise.select(3, 0).select(2, 0).select(1, 0).sum(torch::kFloat64).item<double>();
    image += read.image.select(3, kSide - 1).select(2, kSide - 1).select(1, kChannels - 1).sum(torch::kFloat64).item<double>();
    labels += read.label.sum().item<std::int64_t>();
    bytes.append(static_cast<const char*>(read.index.data_ptr()), static_cast<std::size_t>(batch) * sizeof(std::int64_t));
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  write_file_durably(order, bytes);
  return {{"rows_per_second", static_cast<double>(batch * batches) / seconds}, {"sums", {noise, image, labels}}};
}

int bench_main(int argc, char** argv) {
  std::string write, time, order;
  std::int64_t rows = 20'000, batch = 64, batches = 300;
  CLI::App app("Reads pairs in the order of training.", "onestep-bench-pair-reading");
  app.add_option("--write", write, "folder for a set of CIFAR-10's shape");
  app.add_option("--rows", rows)->check(CLI::Range(1, 1'000'000));
  app.add_option("--time", time, "folder of the set to read");
  app.add_option("--order", order, "file for the rows that were read");
  app.add_option("--batch", batch)->check(CLI::Range(1, 100'000));
  app.add_option("--batches", batches)->check(CLI::Range(1, 100'000));
  CLI11_PARSE(app, argc, argv);
  torch::set_num_threads(1);
  if (!write.empty()) write_set(write, rows);
  if (!time.empty()) std::cout << time_reading(time, order, batch, batches).dump() << std::endl;
  return 0;
}

}  // namespace
}  // namespace onestep

int main(int argc, char** argv) { return onestep::run_main("onestep-bench-pair-reading", onestep::bench_main, argc, argv); }
