// Spoiled files, sixty and more over every format that Onestep reads: each refused with the file, what is
// wrong, expected and found; nothing on disk changed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iostream>
#include <map>

#include "cli/dataset_labels.h"
#include "cli/inspect.h"
#include "cli/npy_header.h"
#include "cli/pack_dataset.h"
#include "cli/verify.h"
#include "common/config.h"
#include "common/image_decode.h"
#include "common/job_spec.h"
#include "common/npz_file.h"
#include "common/safetensors_index.h"
#include "common/zip_archive.h"
#include "integration/spoiled_cases.h"

namespace onestep {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

void throw_first_problem(const Inspection& inspection) {
  if (!inspection.problems.empty()) throw Error(ErrorCode::kCorrupt, inspection.problems.front());
  for (const Inspection& part : inspection.parts) throw_first_problem(part);
}

void open_file(Open how, const WholeFiles& files, const std::string& name) {
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
    case Open::kNpz:
      for (const char* key : {"mu", "sigma"}) static_cast<void>(NpzFile(path).array(key));
      break;
    case Open::kZip:
      for (const ZipArchive archive(path); const ZipEntry& entry : archive.entries()) {
        static_cast<void>(archive.read(entry.name, 1'000'000));
      }
      break;
    case Open::kInspect:
      throw_first_problem(inspect_path(path));
      break;
    case Open::kJobSpec:
      parse_job_spec(read_json_file(path), "/", path);
      break;
  }
}

TEST(SpoiledFiles, EachIsRefusedByNameAndNothingChanges) {
  const auto all = spoiled_files();
  EXPECT_GE(all.size(), 60u);
  for (std::size_t i = 0; i < all.size(); ++i) {
    SCOPED_TRACE("case " + std::to_string(i) + ": " + all[i].name);
    const WholeFiles files;
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

// Pickles, torch.save's files and other people's pairs are read by tools/ alone: tests/tools/converters_test.py spoils those; what a
// tokenizer, a prompt or a network's configuration says wrong is in the tests of their readers.
TEST(SpoiledFiles, EveryFormatHasItsCases) {
  std::map<std::string, int> cases;
  for (const Spoiled& spoiled : spoiled_files()) ++cases[spoiled.format];
  for (const auto& [format, count] : cases) std::cout << "  " << count << " " << format << "\n";
  EXPECT_GE(cases["unknown"], 1);
  cases.erase("unknown");
  std::vector<std::string> formats;
  for (const auto& [format, count] : cases) {
    formats.push_back(format);
    EXPECT_GE(count, 3) << format;
  }
  EXPECT_THAT(formats, UnorderedElementsAre("safetensors", "sharded index", "image file", "pair set", "checkpoint", "export folder",
                                            "run folder", "picture", "pictures with dataset.json", "NumPy", "reference statistics",
                                            "diffusers folder"));
}

// The same openers take the same files unspoiled: the cases above fail for what was done to them.
TEST(SpoiledFiles, WholeOnesAreAccepted) {
  const WholeFiles files;
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
                                  {"stats.npz", Open::kInspect},
                                  {"stats.npz", Open::kNpz},
                                  {"sd", Open::kInspect}}) {
    const auto error = error_of([&] { open_file(how, files, name); });
    EXPECT_FALSE(error) << name << ": " << error->message;
  }
}

}  // namespace
}  // namespace onestep
