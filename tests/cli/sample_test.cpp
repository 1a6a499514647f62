#include "cli/sample.h"

#include <gtest/gtest.h>

#include "cli/local_program.h"
#include "common/job_spec.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

TEST(Sample, TheSpecIsAWholeJobWithAbsolutePaths) {
  const SampleOptions options{.model = "exports/digits", .count = 7, .seed = 9, .label = 3, .prompts = {}, .like = "", .out = "grid.png", .json = false};
  const nlohmann::json json = nlohmann::json::parse(sample_spec_text(options, "/tmp/run"));
  const JobSpec spec = parse_job_spec(json, "/", "test");
  const auto& sample = std::get<SampleSpec>(spec.options);
  EXPECT_TRUE(sample.model.starts_with('/'));
  EXPECT_TRUE(sample.model.ends_with("/exports/digits"));
  EXPECT_TRUE(sample.out.starts_with('/'));
  EXPECT_EQ(sample.count, 7);
  EXPECT_EQ(sample.label, 3);
  EXPECT_EQ(spec.seed, 9u);
  EXPECT_EQ(spec.output, "/tmp/run");
}

TEST(Sample, AMissingModelOrFolderIsNamed) {
  const TempFolder folder;
  SampleOptions options{.model = folder / "nothing", .count = 1, .seed = 0, .label = -1, .prompts = {}, .like = "", .out = folder / "a.png", .json = false};
  auto error = error_of([&] { draw_samples(options); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kNotFound);
  EXPECT_NE(error->message.find(options.model), std::string::npos);
  options.model = folder.path();
  options.out = folder / "no/such/a.png";
  error = error_of([&] { draw_samples(options); });
  ASSERT_TRUE(error);
  EXPECT_NE(error->message.find("no/such"), std::string::npos);
}

TEST(RunProgram, GivesOutputAndExitStatus) {
  const ProgramResult run = run_program({"/bin/sh", "-c", "echo hello; exit 3"});
  EXPECT_EQ(run.output, "hello\n");
  EXPECT_EQ(run.exit_status, 3);
  EXPECT_EQ(run_program({"/bin/sh", "-c", "kill -9 $$"}).exit_status, 137);
  EXPECT_EQ(run_program({"/no/such/program"}).exit_status, 127);
}

TEST(ScratchFolder, IsGoneAfterwards) {
  std::string path;
  {
    const ScratchFolder scratch;
    path = scratch.path();
    spit(path + "/file", "x");
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace onestep
