// Sixty spoiled files, over every format that Onestep reads: each refused with the file, what is
// wrong, expected and found; nothing on disk changed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>

#include <nlohmann/json.hpp>

#include "cli/dataset_labels.h"
#include "cli/inspect.h"
#include "cli/npy_header.h"
#include "cli/pack_dataset.h"
#include "cli/verify.h"
#include "common/checkpoint_manifest.h"
#include "common/config.h"
#include "common/hash.h"
#include "common/image_decode.h"
#include "common/image_file.h"
#include "common/job_spec.h"
#include "common/pair_file.h"
#include "common/run_folder.h"
#include "common/safetensors_index.h"
#include "common/sealed_json.h"
#include "common/zip_archive.h"
#include "support/files.h"
#include "support/stored_zip.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;
using ::testing::HasSubstr;

const std::string kPictures = std::string(ONESTEP_SOURCE_DIR) + "/tests/golden/pictures/";

// One whole file or folder of every format in a folder of its own, and ways to spoil them.
class Files {
 public:
  Files() {
    write_tensors();
    write_images();
    write_pairs();
    write_checkpoint();
    write_export();
    write_run();
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

  [[nodiscard]] std::string at(const std::string& name) const { return folder_ / name; }
  [[nodiscard]] std::string read(const std::string& name) const { return slurp(at(name)); }
  void write(const std::string& name, const std::string& content) const { spit(at(name), content); }
  void cut(const std::string& name, double share) const {
    fs::resize_file(at(name), static_cast<std::uintmax_t>(
                                  share * static_cast<double>(fs::file_size(at(name)))));
  }
  void flip(const std::string& name, std::size_t byte) const {
    write(name, with_flipped_bit(read(name), 8 * byte + 2));
  }
  void flip_last(const std::string& name) const { flip(name, read(name).size() - 1); }
  void replace(const std::string& name, const std::string& from, const std::string& to) const {
    std::string content = read(name);
    const std::size_t where = content.find(from);
    if (where == std::string::npos) throw std::runtime_error(name + ": no " + from);
    write(name, content.replace(where, from.size(), to));
  }
  // Changes a sealed manifest and seals it again.
  template <typename Change>
  void reseal(const std::string& name, Change change) const {
    nlohmann::json document = read_sealed_json(at(name));
    change(document);
    write(name, seal_json(document));
  }
  [[nodiscard]] std::map<std::string, std::string> snapshot() const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder_.path())) {
      if (entry.is_regular_file())
        files[entry.path().string()] = sha256(slurp(entry.path().string()));
    }
    return files;
  }

 private:
  void write_tensors() const {
    const std::vector<float> values(6, 1.5f);
    const auto bytes = std::as_bytes(std::span(values));
    write_safetensors(at("a.safetensors"),
                      {{"x", DType::kF32, {2, 3}, bytes}, {"y", DType::kF32, {6}, bytes}}, {});
    write_safetensors(at("s1.safetensors"), {{"x", DType::kF32, {6}, bytes}}, {});
    write_safetensors(at("s2.safetensors"), {{"y", DType::kF32, {6}, bytes}}, {});
    write("m.safetensors.index.json",
          R"({"metadata":{},"weight_map":{"x":"s1.safetensors","y":"s2.safetensors"}})");
  }
  void write_images() const {
    ImageFileInfo info{.count = 3,
                       .channels = 1,
                       .height = 2,
                       .width = 2,
                       .num_classes = 2,
                       .sha256 = {},
                       .source = "s",
                       .recipe = "r"};
    const std::vector<std::uint8_t> labels{0, 1, 0}, pixels{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    const auto offsets = create_image_file(at("images.h5"), info, labels);
    WorkFile(at("images.h5")).write_at(offsets.images, pixels.data(), pixels.size());
    Sha256 hash;
    hash.update(pixels.data(), pixels.size());
    hash.update(labels.data(), labels.size());
    seal_image_file(at("images.h5"), hash.finish());
  }
  void write_pairs() const {
    fs::create_directories(at("pairs"));
    PairSetManifest manifest;
    manifest.info = {.teacher_sha256 = sha256("t"),
                     .sampler = "{}",
                     .steps = 18,
                     .seed = 1,
                     .channels = 1,
                     .height = 2,
                     .width = 2,
                     .count = 3,
                     .rows_per_shard = 3};
    const PairRows rows{
        std::vector<float>(12, 1.0f), std::vector<float>(12, 0.5f), {0, 1, 2}, {0, 1, 2}};
    manifest.shards = {write_pair_shard(at("pairs"), manifest.info, 0, 1, rows)};
    write_pair_manifest(at("pairs"), manifest);
  }
  void write_checkpoint() const {
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
  void write_export() const {
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
  void write_run() const {
    fs::create_directories(at("run"));
    const nlohmann::json spec = {{"name", "export"}, {"kind", "export"}, {"model", "/m"}};
    write("run/job.json", to_json(parse_job_spec(spec, "/", "test")).dump());
  }

  TempFolder folder_{in_memory_parent()};
};

// How the spoiled file is opened; what is thrown is the refusal.
enum class Open { kTensors, kVerify, kPack, kLabels, kPicture, kNpy, kZip, kInspect, kJobSpec };

void open_file(Open how, const Files& files, const std::string& name) {
  const std::string path = files.at(name);
  switch (how) {
    case Open::kTensors:
      TensorFiles{path};
      break;
    case Open::kVerify:
      verify_path(path);
      break;
    case Open::kPack: {
      PackOptions options;
      options.in = path;
      options.jobs = 1;
      options.out = path + ".packed.h5";
      pack_dataset(options, [](std::int64_t, std::int64_t) {});
      break;
    }
    case Open::kLabels:
      parse_dataset_labels(slurp(path), path, {"a.png", "b.png"}, 0);
      break;
    case Open::kPicture: {
      const std::string content = slurp(path);
      decode_image(std::as_bytes(std::span(content)), path);
      break;
    }
    case Open::kNpy: {
      const std::string content = slurp(path);
      read_npy_header(std::as_bytes(std::span(content)), path);
      break;
    }
    case Open::kZip:
      for (const ZipArchive archive(path); const ZipEntry& entry : archive.entries()) {
        static_cast<void>(archive.read(entry.name, 1'000'000));
      }
      break;
    case Open::kInspect:
      if (const Inspection inspection = inspect_path(path); !inspection.problems.empty()) {
        throw Error(ErrorCode::kCorrupt, inspection.problems.front());
      }
      break;
    case Open::kJobSpec:
      parse_job_spec(read_json_file(path), "/", path);
      break;
  }
}

struct Spoiled {
  const char* name;  // of the file
  Open how;
  std::function<void(const Files&)> spoil;
  std::vector<std::string> parts;  // of the message, beside the file's name
};

std::string header_and(const std::string& header, const std::string& data) {
  std::string length(8, '\0');
  const std::uint64_t size = header.size();
  std::memcpy(length.data(), &size, 8);
  return length + header + data;
}

std::vector<Spoiled> spoiled_files() {
  const auto content = [](const char* name, const std::string& text) {
    return [=](const Files& files) { files.write(name, text); };
  };
  const std::string eight(8, 'd');
  std::vector<Spoiled> all;
  const auto add = [&](const char* name, Open how, std::function<void(const Files&)> spoil,
                       std::vector<std::string> parts) {
    all.push_back({name, how, std::move(spoil), std::move(parts)});
  };
  const auto tensors = [&](const std::string& header, std::vector<std::string> parts) {
    add("a.safetensors", Open::kTensors, content("a.safetensors", header_and(header, eight)),
        std::move(parts));
  };
  const auto index = [&](const std::string& text, std::vector<std::string> parts) {
    add("m.safetensors.index.json", Open::kTensors, content("m.safetensors.index.json", text),
        std::move(parts));
  };
  const auto labels = [&](const std::string& text, std::vector<std::string> parts) {
    add("set/dataset.json", Open::kLabels, content("set/dataset.json", text), std::move(parts));
  };

  // safetensors
  add("a.safetensors", Open::kTensors, content("a.safetensors", ""),
      {"expected at least 8 bytes", "found 0"});
  add("a.safetensors", Open::kTensors, [](const Files& f) { f.cut("a.safetensors", 0.9); },
      {"expected", "truncated"});
  add("a.safetensors", Open::kTensors, [](const Files& f) { f.flip("a.safetensors", 6); },
      {"header length: expected at most", "found"});
  tensors(R"({"x":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})",
          {"\"x\"", "dtype: expected", "found \"F31\""});
  tensors(R"({"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})",
          {"\"x\"", "expected 12 bytes", "found [0,8]"});
  tensors(
      R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
      {"x"});
  tensors(
      R"({"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"y":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
      {"\"y\"", "expected to begin at 2", "found 4"});
  tensors(R"({"x":{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,8]}})",
          {"\"x\"", "expected a whole number", "found"});
  tensors(R"({"x":{"dtype":"F4","shape":[15],"data_offsets":[0,8]}})",
          {"\"x\"", "expected a whole number of bytes", "found [15]"});
  tensors(R"({"__metadata__":{"k":1},"x":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
          {"__metadata__/k", "expected a text", "found 1"});
  tensors("{\"x\":" + std::string(5000, '['), {"header"});
  // sharded index
  index("[]", {"expected an object with a weight_map", "found []"});
  index(R"({"weight_map":{"x":"../s1.safetensors"}})",
        {"/weight_map/x", "expected", "found \"../s1.safetensors\""});
  index(R"({"weight_map":{"x":"s1.safetensors","y":"s1.safetensors"}})",
        {"\"y\"", "expected in s1.safetensors", "found none"});
  index(R"({"weight_map":{"x":"s1.safetensors","z":"s2.safetensors"}})",
        {"\"y\" in s2.safetensors", "expected an entry", "found none"});
  add("m.safetensors.index.json", Open::kInspect,
      [](const Files& f) { f.cut("s2.safetensors", 0.8); },
      {"s2.safetensors", "expected", "found"});
  // image file
  add("images.h5", Open::kVerify, content("images.h5", "no HDF5"),
      {"expected a whole HDF5 file", "found"});
  add("images.h5", Open::kVerify, [](const Files& f) { f.cut("images.h5", 0.5); },
      {"expected a whole HDF5 file", "found"});
  add("images.h5", Open::kVerify, [](const Files& f) { f.flip_last("images.h5"); },
      {"digest", "expected", "found"});
  add("images.h5", Open::kVerify,
      [](const Files& f) {
        f.replace("images.h5", std::string("\x00\x01\x00\x00\x00\x00\x00\x00", 3),
                  std::string("\x00\x09\x00", 3));
      },
      {"expected", "found"});
  add("images.h5", Open::kInspect,
      [](const Files& f) { seal_image_file(f.at("images.h5"), sha256("other")); },
      {"digest", sha256("other"), "found"});
  // pair set
  add("pairs", Open::kVerify, [](const Files& f) { f.cut("pairs/pairs-00000.h5", 0.6); },
      {"pairs-00000.h5", "H5Fopen"});
  add("pairs", Open::kVerify, [](const Files& f) { f.flip_last("pairs/pairs-00000.h5"); },
      {"pairs-00000.h5", "expected", "found"});
  add("pairs", Open::kVerify, [](const Files& f) { fs::remove(f.at("pairs/pairs-00000.h5")); },
      {"pairs-00000.h5"});
  add("pairs", Open::kVerify,
      [](const Files& f) { f.replace("pairs/manifest.json", "\"count\": 3", "\"count\": 4"); },
      {"manifest.json", "expected", "found"});
  add("pairs", Open::kVerify,
      [](const Files& f) { f.reseal("pairs/manifest.json", [](auto& j) { j["steps"] = 19; }); },
      {"pairs-00000.h5", "attribute steps: expected 19, found 18"});
  add("pairs", Open::kVerify,
      [](const Files& f) { f.reseal("pairs/manifest.json", [](auto& j) { j["more"] = 1; }); },
      {"manifest.json", "/more", "expected no such field", "found 1"});
  add("pairs/pairs-00000.h5", Open::kVerify,
      [](const Files& f) {
        fs::copy_file(f.at("images.h5"), f.at("pairs/pairs-00000.h5"),
                      fs::copy_options::overwrite_existing);
        f.flip_last("pairs/pairs-00000.h5");
      },
      {"digest", "expected", "found"});
  add("pairs", Open::kVerify,
      [](const Files& f) {
        f.reseal("pairs/manifest.json", [](auto& j) { j["shards"][0]["file"] = "../x.h5"; });
      },
      {"manifest.json", "expected \"pairs-00000.h5\"", "found \"../x.h5\""});
  // checkpoint
  add("00000005-a1", Open::kVerify,
      [](const Files& f) { f.flip_last("00000005-a1/rank-0-of-1.safetensors"); },
      {"rank-0-of-1.safetensors", "expected", "found"});
  add("00000005-a1", Open::kVerify, [](const Files& f) { f.cut("00000005-a1/manifest.json", 0.5); },
      {"manifest.json"});
  add("00000005-a1", Open::kVerify,
      [](const Files& f) {
        f.reseal("00000005-a1/manifest.json", [](auto& j) { j["format_version"] = 2; });
      },
      {"manifest.json", "/format_version", "expected 1", "found 2"});
  add("00000005-a1", Open::kVerify,
      [](const Files& f) {
        f.reseal("00000005-a1/manifest.json", [](auto& j) { j["files"][0]["name"] = "../rank"; });
      },
      {"manifest.json", "expected", "found"});
  add("00000005-a1", Open::kVerify,
      [](const Files& f) {
        f.reseal("00000005-a1/manifest.json", [](auto& j) { j.erase("pieces"); });
      },
      {"manifest.json", "/pieces", "expected"});
  // export folder
  add("export", Open::kVerify, [](const Files& f) { f.flip_last("export/model.safetensors"); },
      {"model.safetensors", "expected", "found"});
  add("export", Open::kVerify,
      [](const Files& f) { f.replace("export/config.json", "onestep-export", "onestep-exp0rt"); },
      {"expected", "found"});
  add("export", Open::kVerify,
      [](const Files& f) { f.replace("export/SHA256SUMS", "config.json", "../fig.json"); },
      {"SHA256SUMS", "line 1", "expected", "found"});
  add("export", Open::kVerify, [](const Files& f) { fs::remove(f.at("export/model.safetensors")); },
      {"model.safetensors"});
  add("export", Open::kInspect, [](const Files& f) { f.write("export/SHA256SUMS", ""); },
      {"SHA256SUMS", "expected a line", "found none"});
  // run folder, job specs
  add("run", Open::kVerify, [](const Files& f) { f.cut("run/job.json", 0.5); }, {"job.json"});
  add("run/job.json", Open::kJobSpec,
      [](const Files& f) { f.replace("run/job.json", "\"model\"", "\"modle\""); },
      {"/modle", "did you mean 'model'"});
  add("run/job.json", Open::kJobSpec, content("run/job.json", R"({"name":"a","name":"b"})"),
      {"name"});
  // pictures
  add("square.png", Open::kPicture, [](const Files& f) { f.cut("square.png", 0.7); },
      {"PNG: expected a whole one", "found"});
  add("square.png", Open::kPicture, [](const Files& f) { f.flip("square.png", 300); },
      {"PNG: expected a whole one", "found"});
  add("rgb.jpg", Open::kPicture, [](const Files& f) { f.cut("rgb.jpg", 0.7); },
      {"JPEG: expected a whole one", "found"});
  add("cmyk.jpg", Open::kPicture, [](const Files&) {},
      {"JPEG: expected grey or three colours", "found 4"});
  add("transparent.png", Open::kPicture, [](const Files&) {},
      {"expected opaque pixels", "found alpha 254"});
  add("sixteen_bits.png", Open::kInspect, [](const Files&) {},
      {"expected at most 8 bits", "found 16"});
  add("rgb.jpg", Open::kInspect, content("rgb.jpg", "\xff\xd8\xff\xe0 and so on"),
      {"JPEG: expected a whole one", "found"});
  // data sets of pictures
  labels("{}", {"/labels", "expected a list", "found none"});
  labels(R"({"labels":[["a.png",0]]})", {"image \"b.png\"", "expected an entry", "found none"});
  labels(R"({"labels":[["a.png",0],["b.png",[1,1]]]})",
         {"/labels/1", "expected a one-hot list", "found [1,1]"});
  labels(R"({"labels":[["a.png",0],["b.png",1],["../c.png",1]]})",
         {"../c.png", "expected an image", "found none"});
  add("set", Open::kPack,
      [](const Files& f) {
        f.write("set/dataset.json", R"({"labels":[["a.png",-1],["b.png",1]]})");
      },
      {"/labels/0", "expected a class", "found -1"});
  add("set.zip", Open::kPack, [](const Files& f) { f.cut("set.zip", 0.5); },
      {"expected a whole zip archive", "found"});
  add("set.zip", Open::kZip, [](const Files& f) { f.flip("set.zip", 300); }, {"entry \"a.png\""});
  // NumPy
  add("a.npy", Open::kNpy, [](const Files& f) { f.cut("a.npy", 0.95); },
      {"data: expected 16 bytes", "found"});
  add("a.npy", Open::kNpy,
      [](const Files& f) { f.write("a.npy", npy_of("(2,)", std::string(16, 'x'), "|O")); },
      {"descr: expected a plain type", "found '|O'"});
  add("a.npy", Open::kNpy,
      [](const Files& f) {
        f.write("a.npy", npy_of("(999999999999999999, 999999999999999999)", ""));
      },
      {"data: expected", "found 0"});
  add("stats.npz", Open::kInspect, [](const Files& f) { f.flip("stats.npz", 140); },
      {"entry \"mu.npy\""});
  add("stats.npz", Open::kInspect,
      [](const Files& f) {
        f.write("stats.npz", stored_zip({{"mu.npy", "x"}, {"mu.npy", "y"}}));
      },
      {"entry \"mu.npy\"", "expected a name of its own", "found it twice"});
  // what nobody knows
  add("unknown.bin", Open::kInspect, content("unknown.bin", "four and a half"),
      {"expected safetensors", "found none of them"});
  return all;
}

TEST(SpoiledFiles, EachIsRefusedByNameAndNothingChanges) {
  const auto all = spoiled_files();
  EXPECT_GE(all.size(), 60u);
  for (std::size_t i = 0; i < all.size(); ++i) {
    SCOPED_TRACE("case " + std::to_string(i) + ": " + all[i].name);
    const Files files;
    all[i].spoil(files);
    const auto before = files.snapshot();
    const auto error = error_of([&] { open_file(all[i].how, files, all[i].name); });
    if (!error) {
      ADD_FAILURE() << "accepted";
      continue;
    }
    // The file itself, or the one of the folder or index that is spoiled, which the parts name.
    EXPECT_THAT(error->message,
                AnyOf(HasSubstr(files.at(all[i].name)), HasSubstr(files.at(all[i].parts.front()))));
    for (const std::string& part : all[i].parts) EXPECT_THAT(error->message, HasSubstr(part));
    EXPECT_EQ(files.snapshot(), before);
  }
}

// The same openers take the same files unspoiled: the cases above fail for what was done to them.
TEST(SpoiledFiles, WholeOnesAreAccepted) {
  const Files files;
  for (const auto& [name, how] : {std::pair{"a.safetensors", Open::kTensors},
                                  {"m.safetensors.index.json", Open::kTensors},
                                  {"m.safetensors.index.json", Open::kInspect},
                                  {"images.h5", Open::kVerify},
                                  {"images.h5", Open::kInspect},
                                  {"pairs", Open::kVerify},
                                  {"pairs/pairs-00000.h5", Open::kVerify},
                                  {"00000005-a1", Open::kVerify},
                                  {"export", Open::kVerify},
                                  {"run", Open::kVerify},
                                  {"run/job.json", Open::kJobSpec},
                                  {"square.png", Open::kPicture},
                                  {"rgb.jpg", Open::kPicture},
                                  {"rgb.jpg", Open::kInspect},
                                  {"set/dataset.json", Open::kLabels},
                                  {"set", Open::kPack},
                                  {"set.zip", Open::kPack},
                                  {"set.zip", Open::kZip},
                                  {"a.npy", Open::kNpy},
                                  {"stats.npz", Open::kInspect}}) {
    const auto error = error_of([&] { open_file(how, files, name); });
    EXPECT_FALSE(error) << name << ": " << error->message;
  }
}

}  // namespace
}  // namespace onestep
