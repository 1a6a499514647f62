#include "common/checkpoint_manifest.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "common/error.h"
#include "common/hash.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;

CheckpointManifest sample_manifest(std::int64_t iteration, int attempt) {
  CheckpointManifest manifest;
  manifest.kind = "distill";
  manifest.attempt = attempt;
  manifest.iteration = iteration;
  manifest.images = 128 * iteration;
  manifest.config_sha256 = sha256("config");
  manifest.config = {{"dmd", {{"lambda_reg", 0.1}}}};
  manifest.commit = "0123456789ab";
  manifest.processor = "a processor";
  manifest.state = {{"phase", "dmd"}, {"loss", 0.25}};
  return manifest;
}

// A complete checkpoint of two shards; returns its folder.
std::string make_checkpoint(const std::string& root, std::int64_t iteration, int attempt) {
  const std::string folder = root + "/" + checkpoint_folder_name(iteration, attempt);
  fs::create_directories(folder);
  CheckpointManifest manifest = sample_manifest(iteration, attempt);
  for (int shard = 0; shard < 2; ++shard) {
    const std::string name = "shard-" + std::to_string(shard) + ".safetensors";
    const std::string content = "content " + std::to_string(iteration) + " " + name;
    spit(folder + "/" + name, content);
    manifest.files.push_back({name, content.size(), sha256(content)});
    manifest.pieces.push_back({"generator.parameters", 1024 * shard, 1024, name});
  }
  write_checkpoint_manifest(folder, manifest);
  return folder;
}

std::string name_of(const std::string& folder) { return fs::path(folder).filename().string(); }

std::vector<std::string> complete_names(const std::string& root) {
  std::vector<std::string> names;
  for (const auto& folder : list_checkpoints(root)) names.push_back(name_of(folder));
  return names;
}

TEST(CheckpointManifest, RoundTrip) {
  const TempFolder root;
  const std::string folder = make_checkpoint(root.path(), 300, 2);
  EXPECT_EQ(name_of(folder), "00000300-a2");
  const CheckpointManifest manifest = read_checkpoint_manifest(folder, true);
  EXPECT_EQ(to_json(manifest)["state"], to_json(sample_manifest(300, 2))["state"]);
  EXPECT_EQ(manifest.attempt, 2);
  EXPECT_EQ(manifest.iteration, 300);
  EXPECT_EQ(manifest.images, 128 * 300);
  EXPECT_EQ(manifest.config, sample_manifest(1, 1).config);
  ASSERT_EQ(manifest.files.size(), 2u);
  ASSERT_EQ(manifest.pieces.size(), 2u);
  EXPECT_EQ(manifest.pieces[1].offset, 1024);
  EXPECT_EQ(checkpoint_digest(folder), sha256(slurp(folder + "/manifest.json")));
}

TEST(CheckpointManifest, EqualContentEqualBytes) {
  const TempFolder one, two;
  EXPECT_EQ(checkpoint_digest(make_checkpoint(one.path(), 7, 1)),
            checkpoint_digest(make_checkpoint(two.path(), 7, 1)));
}

TEST(CheckpointManifest, AbsentIsNotFound) {
  const TempFolder root;
  EXPECT_EQ(error_of([&] { read_checkpoint_manifest(root.path(), true); })->code,
            ErrorCode::kNotFound);
}

TEST(CheckpointManifest, EveryFlippedBitOfTheManifestIsRefused) {
  const TempFolder root(in_memory_parent());
  const std::string folder = make_checkpoint(root.path(), 300, 1);
  const std::string path = folder + "/manifest.json";
  const std::string content = slurp(path);
  for (std::size_t bit = 0; bit < 8 * content.size(); ++bit) {
    spit(path, with_flipped_bit(content, bit));
    const auto error = error_of([&] { read_checkpoint_manifest(folder, false); });
    ASSERT_TRUE(error) << "bit " << bit;
    ASSERT_EQ(error->code, ErrorCode::kCorrupt) << error->message;
    ASSERT_NE(error->message.find(path), std::string::npos) << error->message;
  }
}

TEST(CheckpointManifest, TruncatedAtEveryLengthIsRefused) {
  const TempFolder root(in_memory_parent());
  const std::string folder = make_checkpoint(root.path(), 300, 1);
  const std::string content = slurp(folder + "/manifest.json");
  for (std::size_t length = 0; length < content.size(); ++length) {
    spit(folder + "/manifest.json", content.substr(0, length));
    const auto error = error_of([&] { read_checkpoint_manifest(folder, false); });
    ASSERT_TRUE(error) << "length " << length;
    EXPECT_EQ(error->code, ErrorCode::kCorrupt);
  }
}

// The same document, spelt otherwise: not the text that was written.
TEST(CheckpointManifest, AnotherSpellingIsRefused) {
  const TempFolder root;
  const std::string folder = make_checkpoint(root.path(), 300, 1);
  const std::string content = slurp(folder + "/manifest.json");
  const std::string compact = nlohmann::json::parse(content).dump();
  for (const std::string& text :
       {content + "\n", " " + content, content.substr(0, content.size() - 1), compact}) {
    spit(folder + "/manifest.json", text);
    const auto error = error_of([&] { read_checkpoint_manifest(folder, false); });
    ASSERT_TRUE(error) << text;
    EXPECT_EQ(error->code, ErrorCode::kCorrupt);
    EXPECT_NE(error->message.find("canonical text"), std::string::npos) << error->message;
  }
}

TEST(CheckpointManifest, ForeignFilesAreRefused) {
  const TempFolder root;
  for (const std::string content :
       {"", "[]", "{}", "null", "{\"format\": \"another\"}", "\x89HDF"}) {
    spit(root / "manifest.json", content);
    const auto error = error_of([&] { read_checkpoint_manifest(root.path(), false); });
    ASSERT_TRUE(error) << content;
    EXPECT_EQ(error->code, ErrorCode::kCorrupt);
  }
}

struct Change {
  const char* pointer;
  nlohmann::json value;  // null: the field is removed
};

TEST(CheckpointManifest, WrongFieldsAreNamed) {
  CheckpointManifest manifest = sample_manifest(5, 1);
  manifest.files = {{"one", 3, sha256("one")}, {"two", 3, sha256("two")}};
  manifest.pieces = {{"b", 0, 8, "one"}, {"b", 8, 8, "two"}};
  const nlohmann::json good = to_json(manifest);
  ASSERT_FALSE(error_of([&] { checkpoint_manifest_from_json(good, "file"); }));
  const std::vector<Change> changes{
      {"/format", "other"},
      {"/format_version", 2},
      {"/format_version", 1.0},
      {"/kind", 3},
      {"/attempt", 0},
      {"/iteration", -1},
      {"/images", 1.5},
      {"/config_sha256", "abc"},
      {"/extra", 1},
      {"/files", "none"},
      {"/files/0/bytes", -3},
      {"/files/0/name", "../one"},
      {"/files/0/name", "two"},
      {"/files/0/extra", 1},
      {"/pieces/0/file", "three"},
      {"/pieces/0/offset", -8},
      {"/pieces/1/length", nullptr},
      {"/state", nullptr},
      {"/commit", nullptr},
  };
  for (const Change& change : changes) {
    nlohmann::json bad = good;
    const nlohmann::json::json_pointer pointer(change.pointer);
    if (change.value.is_null()) {
      bad[pointer.parent_pointer()].erase(pointer.back());
    } else {
      bad[pointer] = change.value;
    }
    const auto error = error_of([&] { checkpoint_manifest_from_json(bad, "the-file"); });
    ASSERT_TRUE(error) << change.pointer;
    EXPECT_EQ(error->code, ErrorCode::kCorrupt);
    const std::string leaf = std::string("the-file: ") + change.pointer;
    // A doubled name is reported where it occurs the second time.
    if (change.value != "two") {
      EXPECT_NE(error->message.find(leaf), std::string::npos) << error->message;
    }
  }
}

TEST(CheckpointManifest, GapsAndOverlapsOfPiecesAreRefused) {
  CheckpointManifest manifest = sample_manifest(5, 1);
  manifest.files = {{"one", 3, sha256("one")}};
  for (const std::int64_t second : {7, 9}) {
    manifest.pieces = {{"b", second, 8, "one"}, {"b", 0, 8, "one"}};
    const auto error = error_of([&] { checkpoint_manifest_from_json(to_json(manifest), "file"); });
    ASSERT_TRUE(error);
    EXPECT_NE(error->message.find("offset 8, found one at " + std::to_string(second)),
              std::string::npos)
        << error->message;
  }
  manifest.pieces = {{"b", 8, 8, "one"}};
  EXPECT_TRUE(error_of([&] { checkpoint_manifest_from_json(to_json(manifest), "file"); }));
  const TempFolder root;
  EXPECT_EQ(error_of([&] { write_checkpoint_manifest(root.path(), manifest); })->code,
            ErrorCode::kInternal);
  EXPECT_TRUE(names_in(root.path()).empty());
}

TEST(CheckpointManifest, FilesAreVerifiedBySizeAndDigest) {
  const TempFolder root(in_memory_parent());
  const std::string folder = make_checkpoint(root.path(), 300, 1);
  const std::string shard = folder + "/shard-1.safetensors";
  const std::string content = slurp(shard);
  const auto refusal = [&] { return error_of([&] { read_checkpoint_manifest(folder, true); }); };
  EXPECT_FALSE(refusal());
  for (std::size_t bit = 0; bit < 8 * content.size(); ++bit) {
    spit(shard, with_flipped_bit(content, bit));
    ASSERT_TRUE(refusal()) << "bit " << bit;
  }
  EXPECT_NE(refusal()->message.find("sha256: expected"), std::string::npos);
  spit(shard, content.substr(1));
  EXPECT_NE(refusal()->message.find("size: expected"), std::string::npos);
  fs::remove(shard);
  EXPECT_EQ(refusal()->code, ErrorCode::kCorrupt);
  EXPECT_NE(refusal()->message.find(shard), std::string::npos);
  EXPECT_FALSE(error_of([&] { read_checkpoint_manifest(folder, false); }));
}

// With any call failed there is either no manifest, or a valid one.
TEST(CheckpointManifest, EveryNthCallFailedGivesNoCheckpointOrAValidOne) {
  int num_calls = 1;
  for (int nth = 1; nth <= num_calls; ++nth) {
    const TempFolder root(in_memory_parent());
    const std::string folder = make_checkpoint(root.path(), 300, 1);
    const CheckpointManifest manifest = read_checkpoint_manifest(folder, true);
    fs::remove(folder + "/manifest.json");
    const auto error = error_of([&] {
      const FailNthCall fail(nth, ENOSPC);
      write_checkpoint_manifest(folder, manifest);
    });
    ASSERT_TRUE(error) << "call " << nth;
    EXPECT_EQ(error->code, ErrorCode::kIo);
    const CheckpointSearch search = find_newest_checkpoint(root.path());
    EXPECT_TRUE(search.rejected.empty());
    EXPECT_EQ(search.newest.has_value(), file_exists(folder + "/manifest.json"));
    EXPECT_EQ(names_in(folder).size(), search.newest ? 3u : 2u)
        << "a temporary file is left, call " << nth;
    const FailNthCall count(0, 0);
    write_checkpoint_manifest(folder, manifest);
    num_calls = count.calls();
  }
  EXPECT_GE(num_calls, 6);
}

TEST(FindNewestCheckpoint, NoFolderAndNoCheckpoint) {
  const TempFolder root;
  EXPECT_FALSE(find_newest_checkpoint(root / "absent").newest);
  EXPECT_FALSE(find_newest_checkpoint(root.path()).newest);
}

TEST(FindNewestCheckpoint, HighestIterationThenAttempt) {
  const TempFolder root;
  make_checkpoint(root.path(), 100, 3);
  make_checkpoint(root.path(), 200, 1);
  make_checkpoint(root.path(), 200, 2);
  make_checkpoint(root.path(), 90, 10);
  const auto search = find_newest_checkpoint(root.path());
  ASSERT_TRUE(search.newest);
  EXPECT_EQ(name_of(search.newest->folder), "00000200-a2");
  EXPECT_TRUE(fs::path(search.newest->folder).is_absolute());
  EXPECT_EQ(search.newest->manifest.attempt, 2);
  EXPECT_TRUE(search.rejected.empty());
}

TEST(FindNewestCheckpoint, IncompleteAndForeignFoldersAreNoCheckpoints) {
  const TempFolder root;
  make_checkpoint(root.path(), 100, 1);
  fs::remove(make_checkpoint(root.path(), 200, 1) + "/manifest.json");
  for (const char* name :
       {"pins", "200-a1", "00000300", "00000300-a", "00000300-a0", "00000300-a1x", "x0000300-a1"}) {
    fs::create_directories(root / name);
    spit(root / (std::string(name) + "/manifest.json"), "{}");
  }
  const auto search = find_newest_checkpoint(root.path());
  ASSERT_TRUE(search.newest);
  EXPECT_EQ(name_of(search.newest->folder), "00000100-a1");
  EXPECT_TRUE(search.rejected.empty());
}

TEST(FindNewestCheckpoint, BadOnesAreSkippedNamedAndKept) {
  const TempFolder root;
  make_checkpoint(root.path(), 100, 1);
  const std::string flipped = make_checkpoint(root.path(), 200, 1) + "/shard-0.safetensors";
  spit(flipped, with_flipped_bit(slurp(flipped), 11));
  const std::string truncated = make_checkpoint(root.path(), 300, 1) + "/manifest.json";
  spit(truncated, slurp(truncated).substr(0, 50));
  const std::string renamed = root / "00000400-a1";
  fs::rename(make_checkpoint(root.path(), 350, 1), renamed);
  const auto search = find_newest_checkpoint(root.path());
  ASSERT_TRUE(search.newest);
  EXPECT_EQ(name_of(search.newest->folder), "00000100-a1");
  ASSERT_EQ(search.rejected.size(), 3u);
  EXPECT_NE(search.rejected[0].find("00000350-a1"), std::string::npos) << search.rejected[0];
  EXPECT_NE(search.rejected[1].find(truncated), std::string::npos) << search.rejected[1];
  EXPECT_NE(search.rejected[2].find("shard-0.safetensors: sha256: expected"), std::string::npos)
      << search.rejected[2];
  EXPECT_EQ(list_checkpoints(root.path()).size(), 4u);
}

// A disk that fails is no reason to train on from an older state.
TEST(FindNewestCheckpoint, DiskErrorIsNotSkipped) {
  const TempFolder root;
  make_checkpoint(root.path(), 100, 1);
  make_checkpoint(root.path(), 200, 1);
  const FailNthCall fail(1, EIO);
  EXPECT_EQ(error_of([&] { find_newest_checkpoint(root.path()); })->code, ErrorCode::kIo);
}

TEST(RemoveOldCheckpoints, KeepsTheNewestAndThePinned) {
  const TempFolder root;
  for (const int iteration : {100, 200, 300, 400, 500}) make_checkpoint(root.path(), iteration, 1);
  pin_checkpoint(root / "00000200-a1");
  EXPECT_TRUE(file_exists(root / "pins/00000200-a1"));
  const auto removed = remove_old_checkpoints(root.path(), 2);
  ASSERT_EQ(removed.size(), 2u);
  EXPECT_EQ(name_of(removed[0]), "00000100-a1");
  EXPECT_EQ(name_of(removed[1]), "00000300-a1");
  EXPECT_FALSE(fs::exists(removed[0]));
  EXPECT_EQ(complete_names(root.path()),
            (std::vector<std::string>{"00000200-a1", "00000400-a1", "00000500-a1"}));
  EXPECT_FALSE(error_of([&] { read_checkpoint_manifest(root / "00000200-a1", true); }));
  unpin_checkpoint(root / "00000200-a1/");
  unpin_checkpoint(root / "00000200-a1");
  EXPECT_EQ(remove_old_checkpoints(root.path(), 2).size(), 1u);
  EXPECT_TRUE(remove_old_checkpoints(root.path(), 2).empty());
}

TEST(RemoveOldCheckpoints, AtLeastOneStays) {
  const TempFolder root;
  make_checkpoint(root.path(), 100, 1);
  make_checkpoint(root.path(), 200, 1);
  EXPECT_EQ(remove_old_checkpoints(root.path(), 0).size(), 1u);
  EXPECT_EQ(complete_names(root.path()), std::vector<std::string>{"00000200-a1"});
}

// Attempt 2 went back to 250 because 300 of attempt 1 was bad: 260 of attempt 2 is the one to keep.
TEST(RemoveOldCheckpoints, LaterAttemptIsNewerThanABadOneOfHigherIteration) {
  const TempFolder root;
  make_checkpoint(root.path(), 250, 1);
  make_checkpoint(root.path(), 300, 1);
  make_checkpoint(root.path(), 260, 2);
  EXPECT_EQ(remove_old_checkpoints(root.path(), 1).size(), 2u);
  EXPECT_EQ(complete_names(root.path()), std::vector<std::string>{"00000260-a2"});
}

TEST(RemoveOldCheckpoints, LeftoversOfACrashGoButNotWhatIsBeingWritten) {
  const TempFolder root;
  fs::remove(make_checkpoint(root.path(), 100, 1) + "/manifest.json");
  make_checkpoint(root.path(), 200, 1);
  fs::remove(make_checkpoint(root.path(), 300, 1) + "/manifest.json");
  const auto removed = remove_old_checkpoints(root.path(), 3);
  ASSERT_EQ(removed.size(), 1u);
  EXPECT_EQ(name_of(removed[0]), "00000100-a1");
  EXPECT_TRUE(fs::exists(root / "00000300-a1"));
}

// The manifest goes first: whatever fails, no checkpoint with a manifest lacks a file.
TEST(RemoveOldCheckpoints, FailedRemovalLeavesNoHalfCheckpoint) {
  for (int nth = 1; nth <= 3; ++nth) {
    const TempFolder root;
    make_checkpoint(root.path(), 100, 1);
    make_checkpoint(root.path(), 200, 1);
    const auto error = error_of([&] {
      const FailNthCall fail(nth, EIO);
      remove_old_checkpoints(root.path(), 1);
    });
    ASSERT_TRUE(error) << "call " << nth;
    for (const auto& folder : list_checkpoints(root.path())) {
      EXPECT_FALSE(error_of([&] { read_checkpoint_manifest(folder, true); })) << folder;
    }
  }
}

TEST(PinCheckpoint, AbsentCheckpointLeavesNoPin) {
  const TempFolder root;
  EXPECT_EQ(error_of([&] { pin_checkpoint(root / "00000100-a1"); })->code, ErrorCode::kNotFound);
  EXPECT_TRUE(names_in(root / "pins").empty());
}

}  // namespace
}  // namespace onestep
