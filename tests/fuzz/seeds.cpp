// Writes the corpus: whole files of every format, small.  fuzz_seeds FOLDER
#include <filesystem>
#include <iostream>

#include "common/embedding_file.h"
#include "common/hash.h"
#include "common/protocol.h"
#include "common/safetensors_file.h"
#include "support/files.h"
#include "support/small_images.h"
#include "support/small_pairs.h"
#include "support/stored_zip.h"

namespace onestep {
namespace {

void write_seeds(const std::string& folder, const std::string& source) {
  const auto at = [&](const std::string& name) {
    const std::string path = folder + "/" + name;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    return path;
  };
  const std::vector<float> values(6, 1.5f);
  const auto bytes = std::as_bytes(std::span(values));
  write_safetensors(at("safetensors/a"),
                    {{"x", DType::kF32, {2, 3}, bytes}, {"y.weight", DType::kF16, {12}, bytes}},
                    {{"k", "v"}});
  write_safetensors(at("safetensors/b"),
                    {{"empty", DType::kF32, {0, 5}, {}}, {"z", DType::kU8, {24}, bytes}}, {});

  for (const auto& entry : std::filesystem::directory_iterator(source + "/tests/golden/pictures")) {
    if (entry.path().extension() == ".safetensors" || entry.file_size() > 8000) continue;
    spit(at("picture/" + entry.path().filename().string()), slurp(entry.path().string()));
  }
  spit(at("archive/stats.npz"),
       stored_zip({{"mu.npy", npy_of("(2,)", std::string(16, 'x'))},
                   {"sigma.npy", npy_of("(1, 2)", std::string(16, 'y'))}}));
  spit(at("archive/set.zip"),
       stored_zip({{"a.png", "not really"}, {"dataset.json", R"({"labels":null})"}}));
  spit(at("npz/stats.npz"), stored_zip({{"mu.npy", npy_of("(2,)", std::string(16, 'x'))},
                                        {"sigma.npy", npy_of("(1, 2)", std::string(16, 'y'))}}));
  spit(at("tokenizer/plain"), "a photo of a cat, it's 2024");
  spit(at("tokenizer/unicode"), "caf\u00e9 na\u00efve \u4e2d\u6587 \U0001f600\u200d &amp;amp; <|endoftext|>");
  spit(at("dataset_labels/classes"), R"({"labels":[["a.png",0],["b.png",1]]})");
  spit(at("dataset_labels/one_hot"), R"({"labels":[["a.png",[0,1,0]],["b.png",[1.0,0,0]]]})");
  spit(
      at("dataset_labels/index"),
      R"({"metadata":{"total_size":8},"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");

  const std::string job = R"({"name":"d","kind":"train_detector","dataset":{"path":"digits.h5"},"seed":7,"optimizer":{"beta1":0.5}})";
  const std::string pipeline = R"({"pipeline":"p","jobs":[)" + job + R"(,{"name":"e","kind":"export","model":"@d","after":["d"]}]})";
  spit(at("job_spec/job"), job);
  spit(at("job_spec/pipeline"), pipeline);
  spit(at("job_spec/distill"), slurp(source + "/configs/digits/smoke/pipeline.json"));
  spit(at("telemetry/hello"),
       encode_frame({.type = MessageType::kHello,
                     .body = {{"job", "d-1"}, {"attempt", 1}, {"rank", 0}, {"ranks", 2}, {"pid", 7}, {"host", "h"}, {"commit", "c"},
                              {"token", "t"}}}) +
           encode_frame({.type = MessageType::kProgress, .body = {{"stage", "dmd"}, {"metrics", {{"loss", 0.5}}}}}));
  spit(at("telemetry/final"), encode_frame({.type = MessageType::kFinalState, .sequence = 3, .body = {{"attempt", 1}, {"outcome", nullptr}}}));
  spit(at("http_request/submit"), "POST /api/v1/jobs\nhost: localhost\ncontent-type: application/json\n\n{\"base\":\"/\",\"spec\":" + job + "}");
  spit(at("http_request/pipeline"),
       "POST /api/v1/pipelines\nhost: localhost\ncontent-type: application/json\nidempotency-key: k1\n\n{\"base\":\"/\",\"spec\":" + pipeline + "}");
  spit(at("http_request/list"), "GET /api/v1/jobs?state=running&limit=3&page_token=4\nhost: localhost\n\n");
  spit(at("http_request/events"), "GET /api/v1/jobs/d-1/events?types=state,log\nhost: localhost\nlast-event-id: 4.1.70\n\n");
  spit(at("http_request/file"), "GET /api/v1/jobs/d-1/checkpoints/00000010-a1/files/x%2Fy\nhost: [::1]:80\nrange: bytes=1-2\norigin: http://a\n\n");

  write_small_images(at("image_file/a.h5"), 3, 1, 2, 2);
  {
    EmbeddingWriter writer(at("embedding_file/a.h5"), {2, 1, 3, sha256("p"), sha256("e"), ""}, std::vector<float>(3, 0.5f));
    writer.add(values);
    static_cast<void>(writer.finish());
  }
  at("pair_shard/any");
  write_pair_shard(folder + "/pair_shard", small_pair_set(), 0, 1, small_pair_rows());
}

}  // namespace
}  // namespace onestep

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "fuzz_seeds FOLDER SOURCE\n";
    return 2;
  }
  onestep::write_seeds(argv[1], argv[2]);
  return 0;
}
