// Bad input: each a clear error with its exit code or status, and nothing changed on disk.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <map>

#include "common/hash.h"
#include "common/protocol.h"
#include "common/safetensors_file.h"
#include "integration/finished_smoke.h"
#include "integration/service.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// Every file below a folder and its content; logs apart, which say what went wrong.
std::map<std::string, std::string> snapshot(const std::string& folder) {
  std::map<std::string, std::string> files;
  if (!fs::exists(folder)) return files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string path = entry.path().string();
    if (entry.is_regular_file() && path.find("/logs/") == std::string::npos) files[path] = sha256(slurp(path));
  }
  return files;
}

// Same without the record of the attempt that failed.
std::map<std::string, std::string> products(const std::string& folder) {
  auto files = snapshot(folder);
  std::erase_if(files, [](const auto& file) { return file.first.find("/outcome-a") != std::string::npos; });
  return files;
}

class BadInput : public ::testing::Test {
 protected:
  BadInput() {
    for (const char* job : {"detector", "teacher", "pairs"}) {
      fs::copy(smoke_.run_folder(job), folder_ / job, fs::copy_options::recursive);
    }
    fs::copy_file(source_folder() + "/build/data/digits.h5", folder_ / "digits.h5");
  }

  // The finished job's spec with inputs from this test's own copies, which it may damage.
  nlohmann::json spec(const std::string& job) const {
    std::string text = slurp(smoke_.run_folder(job) + "/job.json");
    const auto replace = [&](const std::string& from, const std::string& to) {
      for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
        text.replace(at, from.size(), to);
      }
    };
    for (const char* name : {"detector", "teacher", "pairs"}) replace('"' + smoke_.run_folder(name) + '"', '"' + (folder_ / name) + '"');
    replace('"' + source_folder() + "/build/data/digits.h5\"", '"' + (folder_ / "digits.h5") + '"');
    nlohmann::json json = nlohmann::json::parse(text);
    json.erase("output");
    json.erase("evaluation");
    return json;
  }

  // Runs the worker; expects `status`, all of `parts` in the message, and no product.
  void expect_refused(const nlohmann::json& spec, int status, const std::vector<std::string>& parts,
                      const std::string& launcher = "") {
    spit(folder_ / "job.json", spec.dump());
    const auto before = products(folder_.path());
    const ShellResult run = shell(launcher + " onestep-worker " + folder_ / "job.json" + " --output " + folder_ / "run");
    EXPECT_EQ(run.exit_status, status) << run.error;
    for (const std::string& part : parts) EXPECT_THAT(run.error, HasSubstr(part));
    EXPECT_EQ(products(folder_.path()), before);
  }

  void flip(const std::string& file, double position) {
    const std::string content = slurp(file);
    const auto bit = static_cast<std::size_t>(position * static_cast<double>(content.size() - 1)) * 8 + 3;
    spit(file, with_flipped_bit(content, bit));
  }

  void truncate(const std::string& file) { fs::resize_file(file, fs::file_size(file) * 2 / 3); }

  const FinishedSmoke smoke_ = finished_smoke();
  const TempFolder folder_;
};

// ---- Configuration -------------------------------------------------------------------------------

TEST_F(BadInput, EveryMistakeInASpecAtOnce) {
  nlohmann::json json = spec("distill");
  json["dmd"]["bacth"] = 3;
  json["micro_batches"] = "four";
  json["dmd"]["sigma_lo"] = -1.0;
  expect_refused(json, 3, {"3 problems", "/dmd/bacth", "did you mean 'batch'", "/micro_batches", "/dmd/sigma_lo"});
}

TEST_F(BadInput, ARankCountThatTheMicroBatchesDoNotAllow) {
  expect_refused(spec("distill"), 3, {"3", "4 micro-batches"},
                 "mpirun --allow-run-as-root --oversubscribe --bind-to none -n 3");
  nlohmann::json json = spec("distill");
  json["ranks"] = 3;
  expect_refused(json, 3, {"/ranks", "expected one of 1, 2, 4"});
}

TEST_F(BadInput, OverRestWithEveryPointerAndNoJob) {
  Service service(folder_ / "data");
  const auto before = snapshot(service.data() + "/jobs");
  nlohmann::json json = spec("distill");
  json["dmd"]["bacth"] = 3;
  json["ranks"] = 3;
  const auto error = error_of([&] { service.submit(json); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kConfig);
  EXPECT_THAT(error->message, AllOf(HasSubstr("/dmd/bacth"), HasSubstr("/ranks")));
  EXPECT_EQ(service.client().get("/api/v1/jobs").at("items").size(), 0u);
  EXPECT_EQ(snapshot(service.data() + "/jobs"), before);
}

TEST_F(BadInput, AUserErrorIsNotRetried) {
  Service service(folder_ / "data");
  nlohmann::json json = spec("distill");
  json["teacher"] = folder_ / "no-such-teacher";
  const std::string id = service.submit(json).at(0);
  const nlohmann::json job = service.wait_for(id, {"failed"});
  EXPECT_EQ(job.at("attempts").size(), 1u);
  EXPECT_THAT(job.at("reason").get<std::string>(), HasSubstr("no-such-teacher"));
}

// ---- Files ---------------------------------------------------------------------------------------

TEST_F(BadInput, MissingFiles) {
  fs::remove(folder_ / "digits.h5");
  expect_refused(spec("teacher"), 4, {"digits.h5"});
  fs::remove_all(folder_ / "teacher");
  expect_refused(spec("distill"), 4, {folder_ / "teacher"});
  EXPECT_EQ(shell("onestep-worker " + folder_ / "none.json").exit_status, 4);
}

TEST_F(BadInput, ImageFileTruncatedFlippedForeign) {
  const std::string file = folder_ / "digits.h5";
  const std::string whole = slurp(file);
  truncate(file);
  expect_refused(spec("teacher"), 4, {file});
  spit(file, whole);
  flip(file, 0.5);
  expect_refused(spec("teacher"), 4, {file, "expected", "found"});
  spit(file, "not an HDF5 file at all");
  expect_refused(spec("teacher"), 4, {file});
  fs::copy_file(folder_ / "pairs/pairs-00000.h5", file, fs::copy_options::overwrite_existing);
  expect_refused(spec("teacher"), 4, {file});
}

TEST_F(BadInput, PairShardTruncatedFlippedForeign) {
  const std::string file = folder_ / "pairs/pairs-00001.h5";
  const std::string whole = slurp(file);
  truncate(file);
  expect_refused(spec("distill"), 4, {file});
  for (const double position : {0.02, 0.5, 0.9}) {
    spit(file, whole);
    flip(file, position);
    expect_refused(spec("distill"), 4, {file});
  }
  fs::copy_file(folder_ / "digits.h5", file, fs::copy_options::overwrite_existing);
  expect_refused(spec("distill"), 4, {file});
}

TEST_F(BadInput, ManifestTruncatedFlippedForeign) {
  const std::string file = folder_ / "pairs/manifest.json";
  const std::string whole = slurp(file);
  truncate(file);
  expect_refused(spec("distill"), 4, {file});
  for (const double position : {0.1, 0.5, 0.9}) {
    spit(file, whole);
    flip(file, position);
    expect_refused(spec("distill"), 4, {file});
  }
  spit(file, "{\"format\": \"another\"}\n");
  expect_refused(spec("distill"), 4, {file});
}

TEST_F(BadInput, SafetensorsTruncatedFlippedForeign) {
  const std::string file = folder_ / "teacher/model.safetensors";
  const std::string whole = slurp(file);
  truncate(file);
  expect_refused(spec("distill"), 4, {file});
  for (const double position : {0.0, 0.001, 0.5, 1.0}) {
    spit(file, whole);
    flip(file, position);
    expect_refused(spec("distill"), 4, {file});
  }
  fs::copy_file(folder_ / "digits.h5", file, fs::copy_options::overwrite_existing);
  expect_refused(spec("distill"), 4, {file});
}

// ---- Things that are whole but do not fit --------------------------------------------------------

class ForeignTensors : public BadInput {
 protected:
  // Rewrites the teacher's weights through `change` and makes its config agree with the new digest.
  template <typename Change>
  void rewrite_teacher(Change change) {
    const std::string file = folder_ / "teacher/model.safetensors";
    const std::string copy = folder_ / "old.safetensors";
    fs::rename(file, copy);
    {
      const SafetensorsFile old(copy);
      std::vector<TensorView> tensors = old.tensors();
      change(tensors);
      nlohmann::json config = nlohmann::json::parse(slurp(folder_ / "teacher/config.json"));
      config["model_sha256"] = write_safetensors(file, tensors, old.metadata());
      spit(folder_ / "teacher/config.json", config.dump(2) + "\n");
    }
    fs::remove(copy);
  }
};

TEST_F(ForeignTensors, Missing) {
  std::string name;
  rewrite_teacher([&](std::vector<TensorView>& tensors) {
    name = tensors.back().name;
    tensors.pop_back();
  });
  expect_refused(spec("pairs"), 4, {name});
}

TEST_F(ForeignTensors, Extra) {
  rewrite_teacher([](std::vector<TensorView>& tensors) {
    tensors.push_back(tensors.back());
    tensors.back().name = "model.nobody_knows";
  });
  expect_refused(spec("pairs"), 4, {"model.nobody_knows"});
}

TEST_F(ForeignTensors, WrongShape) {
  std::string name;
  rewrite_teacher([&](std::vector<TensorView>& tensors) {
    name = tensors.back().name;
    tensors.back().shape.insert(tensors.back().shape.begin(), 1);
  });
  expect_refused(spec("pairs"), 4, {name, "expected", "found"});
}

TEST_F(ForeignTensors, PairsOfAnotherTeacher) {
  std::string digest = smoke_.digest("teacher");
  std::vector<std::byte> changed;
  rewrite_teacher([&](std::vector<TensorView>& tensors) {
    changed.assign(tensors.back().bytes.begin(), tensors.back().bytes.end());
    changed.front() ^= std::byte{1};
    tensors.back().bytes = changed;
  });
  expect_refused(spec("distill"), 4, {"teacher", digest, sha256_file(folder_ / "teacher/model.safetensors")});
}

// ---- The machine ---------------------------------------------------------------------------------

TEST_F(BadInput, FullDisk) {
  const nlohmann::json json = spec("pairs");
  spit(folder_ / "job.json", json.dump());
  const std::string worker = "onestep-worker " + folder_ / "job.json" + " --output " + folder_ / "run";
  const std::string limited = "ONESTEP_FULL_DISK=" + folder_ / "run" + " ONESTEP_FULL_DISK_BYTES=20000 LD_PRELOAD=" + ONESTEP_FULL_DISK;
  const ShellResult full = shell(limited + " " + worker);
  EXPECT_EQ(full.exit_status, 5) << full.error;
  EXPECT_THAT(full.error, AllOf(HasSubstr(folder_ / "run"), HasSubstr("No space left on device")));
  for (const auto& [path, digest] : snapshot(folder_ / "run")) {
    EXPECT_THAT(path, Not(HasSubstr(".h5"))) << "half a shard, or a temporary one";
    EXPECT_THAT(path, Not(HasSubstr("manifest.json")));
  }
  const ShellResult room = shell(worker);
  EXPECT_EQ(room.exit_status, 0) << room.error;
  EXPECT_EQ(room.last_line().at("digest"), smoke_.digest("pairs"));
}

TEST(Ports, APortInUseIsNamedAndNothingIsMade) {
  const TempFolder folder;
  const Service service(folder / "data");
  const std::string address = service.url().substr(std::string("http://").size());
  const ShellResult second = shell("onestep up --data " + folder / "other" + " --listen " + address);
  EXPECT_EQ(second.exit_status, 6);
  EXPECT_THAT(second.error + second.output, HasSubstr(address));
  EXPECT_FALSE(fs::exists(folder / "other"));
}

TEST(Ports, OnlyLoopback) {
  const TempFolder folder;
  for (const char* address : {"0.0.0.0:0", "192.168.0.1:0", "[::]:0", "example.com:80"}) {
    const ShellResult run = shell("onestep up --data " + folder / "data" + " --listen " + address);
    EXPECT_EQ(run.exit_status, 2) << address;
    EXPECT_FALSE(fs::exists(folder / "data")) << address;
  }
}

TEST(Ports, ASecondCoordinatorOnAFolderIsRefused) {
  const TempFolder folder;
  const Service service(folder / "data");
  const ShellResult second = shell("onestep up --data " + folder / "data" + " --listen 127.0.0.1:0");
  EXPECT_EQ(second.exit_status, 8) << second.error;
  EXPECT_EQ(service.client().get("/healthz").is_null(), false);
}

TEST(Telemetry, OfAnUnknownJobIsRefusedAndNothingIsStored) {
  const TempFolder folder;
  const Service service(folder / "data");
  const nlohmann::json address = nlohmann::json::parse(slurp(folder / "data/coordinator.address"));
  const std::string text = address.at("telemetry");
  const int connection = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(std::stoi(text.substr(text.rfind(':') + 1))));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::connect(connection, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
  const std::string hello = encode_frame({MessageType::kHello, 0,
                                          {{"job", "nobody-7"}, {"attempt", 1}, {"rank", 0}, {"ranks", 1}, {"pid", 1},
                                           {"host", "h"}, {"commit", "c"}}});
  ASSERT_EQ(::send(connection, hello.data(), hello.size(), 0), static_cast<ssize_t>(hello.size()));
  FrameReader reader;
  std::optional<Message> answer;
  char buffer[4096];
  while (!answer) {
    const ssize_t count = ::read(connection, buffer, sizeof buffer);
    ASSERT_GT(count, 0);
    reader.feed({buffer, static_cast<std::size_t>(count)});
    answer = reader.next();
  }
  EXPECT_EQ(answer->type, MessageType::kRefused);
  EXPECT_THAT(answer->body.at("reason").get<std::string>(), HasSubstr("nobody-7"));
  EXPECT_EQ(::read(connection, buffer, sizeof buffer), 0) << "the connection is closed";
  ::close(connection);
  EXPECT_EQ(service.client().get("/api/v1/jobs").at("items").size(), 0u);
}

}  // namespace
}  // namespace onestep
