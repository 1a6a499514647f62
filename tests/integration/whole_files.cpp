#include "integration/whole_files.h"

#include <span>
#include <vector>

#include "common/checkpoint_manifest.h"
#include "common/job_spec.h"
#include "common/safetensors_file.h"
#include "support/small_images.h"
#include "support/small_pairs.h"
#include "support/stored_zip.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;

const std::string kPictures = std::string(ONESTEP_SOURCE_DIR) + "/tests/golden/pictures/";

}  // namespace

WholeFiles::WholeFiles() {
  write_tensors();
  write_images();
  write_pairs();
  write_checkpoint();
  write_export();
  write_run();
  write_diffusers();
  for (const char* name :
       {"square.png", "rgb.jpg", "cmyk.jpg", "transparent.png", "sixteen_bits.png"}) {
    fs::copy_file(kPictures + name, at(name));
  }
  fs::create_directories(at("set"));
  for (const char* name : {"set/a.png", "set/b.png"})
    fs::copy_file(kPictures + "square.png", at(name));
  write("set/dataset.json", R"({"labels":[["a.png",0],["b.png",1]]})");
  write("a.npy", npy_of("(2,)", std::string(16, 'x')));
  write("stats.npz", stored_zip({{"mu.npy", npy_of("(2,)", std::string(16, 'x'))},
                                 {"sigma.npy", npy_of("(1, 2)", std::string(16, 'y'))}}));
  write("set.zip", stored_zip({{"a.png", slurp(kPictures + "square.png")}}));
}

void WholeFiles::write_tensors() const {
  const std::vector<float> values(6, 1.5f);
  const auto bytes = std::as_bytes(std::span(values));
  write_safetensors(at("a.safetensors"),
                    {{"x", DType::kF32, {2, 3}, bytes}, {"y", DType::kF32, {6}, bytes}}, {});
  write_safetensors(at("s1.safetensors"), {{"x", DType::kF32, {6}, bytes}}, {});
  write_safetensors(at("s2.safetensors"), {{"y", DType::kF32, {6}, bytes}}, {});
  write("m.safetensors.index.json",
        R"({"metadata":{},"weight_map":{"x":"s1.safetensors","y":"s2.safetensors"}})");
}

void WholeFiles::write_images() const { write_small_images(at("images.h5"), 3, 1, 2, 2); }

void WholeFiles::write_pairs() const {
  fs::create_directories(at("pairs"));
  PairSetManifest manifest;
  manifest.info = small_pair_set();
  manifest.shards = {write_pair_shard(at("pairs"), manifest.info, 0, 1, small_pair_rows())};
  write_pair_manifest(at("pairs"), manifest);
}

void WholeFiles::write_checkpoint() const {
  fs::create_directories(at("00000005-a1"));
  const std::vector<float> values(4, 0.5f);
  const std::string file = at("00000005-a1/rank-0-of-1.safetensors");
  CheckpointManifest manifest;
  manifest.kind = "distill";
  manifest.iteration = 5;
  manifest.images = 640;
  manifest.config_sha256 = sha256("config");
  manifest.config = manifest.state = nlohmann::json::object();
  manifest.commit = "c";
  manifest.processor = "p";
  const std::string digest = write_safetensors(
      file, {{"generator.parameters@0", DType::kF32, {4}, std::as_bytes(std::span(values))}}, {});
  manifest.files = {{"rank-0-of-1.safetensors", file_size(file), digest}};
  manifest.pieces = {{"generator.parameters", 0, 4, "rank-0-of-1.safetensors"}};
  write_checkpoint_manifest(at("00000005-a1"), manifest);
}

void WholeFiles::write_export() const {
  fs::create_directories(at("export"));
  fs::copy_file(at("a.safetensors"), at("export/model.safetensors"));
  const nlohmann::json config = {{"format", "onestep-export"},
                                 {"format_version", 1},
                                 {"kind", "distill"},
                                 {"model_sha256", sha256_file(at("export/model.safetensors"))}};
  write("export/config.json", config.dump());
  std::string sums;
  for (const char* name : {"config.json", "model.safetensors"}) {
    sums += sha256_file(at(std::string("export/") + name)) + "  " + name + "\n";
  }
  write("export/SHA256SUMS", sums);
}

void WholeFiles::write_run() const {
  fs::create_directories(at("run"));
  const nlohmann::json spec = {{"name", "export"}, {"kind", "export"}, {"model", "/m"}};
  write("run/job.json", to_json(parse_job_spec(spec, "/", "test")).dump());
}

void WholeFiles::write_diffusers() const {
  fs::create_directories(at("sd/unet"));
  fs::copy_file(at("a.safetensors"), at("sd/unet/diffusion_pytorch_model.safetensors"));
  write("sd/unet/config.json", R"({"_class_name":"UNet2DConditionModel"})");
  write("sd/model_index.json",
        R"({"_class_name":"StableDiffusionPipeline","unet":["diffusers","UNet2DConditionModel"],"safety_checker":[null,null]})");
}

}  // namespace onestep
