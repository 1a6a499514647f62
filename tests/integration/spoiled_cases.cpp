#include "integration/spoiled_cases.h"

#include <cstring>
#include <utility>

#include "common/image_file.h"
#include "common/job_spec.h"
#include "support/stored_zip.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;

std::string header_and(const std::string& header, const std::string& data) {
  std::string length(8, '\0');
  const std::uint64_t size = header.size();
  std::memcpy(length.data(), &size, 8);
  return length + header + data;
}

}  // namespace

std::vector<Spoiled> spoiled_files() {
  const auto content = [](const char* name, const std::string& text) {
    return [=](const WholeFiles& files) { files.write(name, text); };
  };
  const std::string eight(8, 'd');
  std::vector<Spoiled> all;
  const char* format = "";
  const auto add = [&](const char* name, Open how, std::function<void(const WholeFiles&)> spoil,
                       std::vector<std::string> parts) {
    all.push_back({format, name, how, std::move(spoil), std::move(parts)});
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

  format = "safetensors";
  add("a.safetensors", Open::kTensors, content("a.safetensors", ""),
      {"expected at least 8 bytes", "found 0"});
  add("a.safetensors", Open::kTensors, [](const WholeFiles& f) { f.cut("a.safetensors", 0.9); },
      {"expected", "truncated"});
  add("a.safetensors", Open::kTensors, [](const WholeFiles& f) { f.flip("a.safetensors", 6); },
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
  format = "sharded index";
  index("[]", {"expected an object with a weight_map", "found []"});
  index(R"({"weight_map":{"x":"../s1.safetensors"}})",
        {"/weight_map/x", "expected", "found \"../s1.safetensors\""});
  index(R"({"weight_map":{"x":"s1.safetensors","y":"s1.safetensors"}})",
        {"\"y\"", "expected in s1.safetensors", "found none"});
  index(R"({"weight_map":{"x":"s1.safetensors","z":"s2.safetensors"}})",
        {"\"y\" in s2.safetensors", "expected an entry", "found none"});
  add("m.safetensors.index.json", Open::kInspect,
      [](const WholeFiles& f) { f.cut("s2.safetensors", 0.8); },
      {"s2.safetensors", "expected", "found"});
  format = "image file";
  add("images.h5", Open::kVerify, content("images.h5", "no HDF5"),
      {"expected a whole HDF5 file", "found"});
  add("images.h5", Open::kVerify, [](const WholeFiles& f) { f.cut("images.h5", 0.5); },
      {"expected a whole HDF5 file", "found"});
  add("images.h5", Open::kVerify, [](const WholeFiles& f) { f.flip_last("images.h5"); },
      {"digest", "expected", "found"});
  add("images.h5", Open::kVerify,
      [](const WholeFiles& f) {
        f.replace("images.h5", std::string("\x00\x01\x00\x00\x00\x00\x00\x00", 3),
                  std::string("\x00\x09\x00", 3));
      },
      {"expected", "found"});
  add("images.h5", Open::kInspect,
      [](const WholeFiles& f) { seal_image_file(f.at("images.h5"), sha256("other")); },
      {"digest", sha256("other"), "found"});
  format = "pair set";
  add("pairs", Open::kVerify, [](const WholeFiles& f) { f.cut("pairs/pairs-00000.h5", 0.6); },
      {"pairs-00000.h5", "H5Fopen"});
  add("pairs", Open::kVerify, [](const WholeFiles& f) { f.flip_last("pairs/pairs-00000.h5"); },
      {"pairs-00000.h5", "expected", "found"});
  add("pairs", Open::kVerify, [](const WholeFiles& f) { fs::remove(f.at("pairs/pairs-00000.h5")); },
      {"pairs-00000.h5"});
  add("pairs", Open::kVerify,
      [](const WholeFiles& f) { f.replace("pairs/manifest.json", "\"count\": 3", "\"count\": 4"); },
      {"manifest.json", "expected", "found"});
  add("pairs", Open::kVerify,
      [](const WholeFiles& f) { f.reseal("pairs/manifest.json", [](auto& j) { j["steps"] = 19; }); },
      {"pairs-00000.h5", "attribute steps: expected 19, found 18"});
  add("pairs", Open::kVerify,
      [](const WholeFiles& f) { f.reseal("pairs/manifest.json", [](auto& j) { j["more"] = 1; }); },
      {"manifest.json", "/more", "expected no such field", "found 1"});
  add("pairs/pairs-00000.h5", Open::kVerify,
      [](const WholeFiles& f) {
        fs::copy_file(f.at("images.h5"), f.at("pairs/pairs-00000.h5"),
                      fs::copy_options::overwrite_existing);
        f.flip_last("pairs/pairs-00000.h5");
      },
      {"digest", "expected", "found"});
  add("pairs", Open::kVerify,
      [](const WholeFiles& f) {
        f.reseal("pairs/manifest.json", [](auto& j) { j["shards"][0]["file"] = "../x.h5"; });
      },
      {"manifest.json", "expected \"pairs-00000.h5\"", "found \"../x.h5\""});
  format = "checkpoint";
  add("00000005-a1", Open::kVerify,
      [](const WholeFiles& f) { f.flip_last("00000005-a1/rank-0-of-1.safetensors"); },
      {"rank-0-of-1.safetensors", "expected", "found"});
  add("00000005-a1", Open::kVerify, [](const WholeFiles& f) { f.cut("00000005-a1/manifest.json", 0.5); },
      {"manifest.json"});
  add("00000005-a1", Open::kVerify,
      [](const WholeFiles& f) {
        f.reseal("00000005-a1/manifest.json", [](auto& j) { j["format_version"] = 2; });
      },
      {"manifest.json", "/format_version", "expected 1", "found 2"});
  add("00000005-a1", Open::kVerify,
      [](const WholeFiles& f) {
        f.reseal("00000005-a1/manifest.json", [](auto& j) { j["files"][0]["name"] = "../rank"; });
      },
      {"manifest.json", "expected", "found"});
  add("00000005-a1", Open::kVerify,
      [](const WholeFiles& f) {
        f.reseal("00000005-a1/manifest.json", [](auto& j) { j.erase("pieces"); });
      },
      {"manifest.json", "/pieces", "expected"});
  format = "export folder";
  add("export", Open::kVerify, [](const WholeFiles& f) { f.flip_last("export/model.safetensors"); },
      {"model.safetensors", "expected", "found"});
  add("export", Open::kVerify,
      [](const WholeFiles& f) { f.replace("export/config.json", "onestep-export", "onestep-exp0rt"); },
      {"expected", "found"});
  add("export", Open::kVerify,
      [](const WholeFiles& f) { f.replace("export/SHA256SUMS", "config.json", "../fig.json"); },
      {"SHA256SUMS", "line 1", "expected", "found"});
  add("export", Open::kVerify, [](const WholeFiles& f) { fs::remove(f.at("export/model.safetensors")); },
      {"model.safetensors"});
  add("export", Open::kInspect, [](const WholeFiles& f) { f.write("export/SHA256SUMS", ""); },
      {"SHA256SUMS", "expected a line", "found none"});
  format = "run folder";
  add("run", Open::kVerify, [](const WholeFiles& f) { f.cut("run/job.json", 0.5); }, {"job.json"});
  add("run/job.json", Open::kJobSpec,
      [](const WholeFiles& f) { f.replace("run/job.json", "\"model\"", "\"modle\""); },
      {"/modle", "did you mean 'model'"});
  add("run/job.json", Open::kJobSpec, content("run/job.json", R"({"name":"a","name":"b"})"),
      {"name"});
  format = "picture";
  add("square.png", Open::kPicture, [](const WholeFiles& f) { f.cut("square.png", 0.7); },
      {"PNG: expected a whole one", "found"});
  add("square.png", Open::kPicture, [](const WholeFiles& f) { f.flip("square.png", 300); },
      {"PNG: expected a whole one", "found"});
  add("rgb.jpg", Open::kPicture, [](const WholeFiles& f) { f.cut("rgb.jpg", 0.7); },
      {"JPEG: expected a whole one", "found"});
  add("cmyk.jpg", Open::kPicture, [](const WholeFiles&) {},
      {"JPEG: expected grey or three colours", "found 4"});
  add("transparent.png", Open::kPicture, [](const WholeFiles&) {},
      {"expected opaque pixels", "found alpha 254"});
  add("sixteen_bits.png", Open::kInspect, [](const WholeFiles&) {},
      {"expected at most 8 bits", "found 16"});
  add("rgb.jpg", Open::kInspect, content("rgb.jpg", "\xff\xd8\xff\xe0 and so on"),
      {"JPEG: expected a whole one", "found"});
  format = "pictures with dataset.json";
  labels("{}", {"/labels", "expected a list", "found none"});
  labels(R"({"labels":[["a.png",0]]})", {"image \"b.png\"", "expected an entry", "found none"});
  labels(R"({"labels":[["a.png",0],["b.png",[1,1]]]})",
         {"/labels/1", "expected a one-hot list", "found [1,1]"});
  labels(R"({"labels":[["a.png",0],["b.png",1],["../c.png",1]]})",
         {"../c.png", "expected an image", "found none"});
  add("set", Open::kPack,
      [](const WholeFiles& f) {
        f.write("set/dataset.json", R"({"labels":[["a.png",-1],["b.png",1]]})");
      },
      {"/labels/0", "expected a class", "found -1"});
  add("set.zip", Open::kPack, [](const WholeFiles& f) { f.cut("set.zip", 0.5); },
      {"expected a whole zip archive", "found"});
  add("set.zip", Open::kZip, [](const WholeFiles& f) { f.flip("set.zip", 300); }, {"entry \"a.png\""});
  format = "NumPy";
  add("a.npy", Open::kNpy, [](const WholeFiles& f) { f.cut("a.npy", 0.95); },
      {"data: expected 16 bytes", "found"});
  add("a.npy", Open::kNpy,
      [](const WholeFiles& f) { f.write("a.npy", npy_of("(2,)", std::string(16, 'x'), "|O")); },
      {"descr: expected a plain type", "found '|O'"});
  add("a.npy", Open::kNpy,
      [](const WholeFiles& f) {
        f.write("a.npy", npy_of("(999999999999999999, 999999999999999999)", ""));
      },
      {"data: expected", "found 0"});
  add("stats.npz", Open::kInspect, [](const WholeFiles& f) { f.flip("stats.npz", 140); },
      {"entry \"mu.npy\""});
  add("stats.npz", Open::kInspect,
      [](const WholeFiles& f) {
        f.write("stats.npz", stored_zip({{"mu.npy", "x"}, {"mu.npy", "y"}}));
      },
      {"entry \"mu.npy\"", "expected a name of its own", "found it twice"});
  format = "reference statistics";
  add("stats.npz", Open::kNpz, [](const WholeFiles& f) { f.cut("stats.npz", 0.9); },
      {"expected a zip archive's end record", "found none"});
  add("stats.npz", Open::kNpz, [](const WholeFiles& f) { f.flip("stats.npz", 140); },
      {"key `mu`", "check sum: expected", "found"});
  add("stats.npz", Open::kNpz,
      [](const WholeFiles& f) { f.write("stats.npz", stored_zip({{"mu.npy", npy_of("(2,)", std::string(16, 'x'))}})); },
      {"key `sigma`: expected to be there", "found only mu"});
  add("stats.npz", Open::kNpz,
      [](const WholeFiles& f) {
        f.write("stats.npz", stored_zip({{"mu.npy", npy_of("(2,)", std::string(16, 'x'), "|O")}}));
      },
      {"key `mu`: type: expected '<f4' or '<f8'", "Python objects are never read"});
  add("stats.npz", Open::kNpz,
      [](const WholeFiles& f) {
        f.write("stats.npz", stored_zip({{"mu.npy", npy_of("(3,)", std::string(16, 'x'))}}));
      },
      {"key `mu`: expected 3 numbers of 8 bytes", "found 16 bytes"});
  format = "diffusers folder";
  add("sd", Open::kInspect, [](const WholeFiles& f) { f.cut("sd/model_index.json", 0.5); },
      {"model_index.json", "expected a JSON object", "found"});
  add("sd", Open::kInspect, [](const WholeFiles& f) { fs::remove_all(f.at("sd/unet")); },
      {"model_index.json", "/unet: expected a folder unet", "found none"});
  add("sd", Open::kInspect,
      [](const WholeFiles& f) { f.cut("sd/unet/diffusion_pytorch_model.safetensors", 0.9); },
      {"sd/unet/diffusion_pytorch_model.safetensors", "expected", "truncated"});
  format = "unknown";
  add("unknown.bin", Open::kInspect, content("unknown.bin", "four and a half"),
      {"expected safetensors", "found none of them"});
  return all;
}

}  // namespace onestep
