#include "cli/evaluate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "common/job_spec.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

EvaluateSpec spec_of(const EvaluateOptions& options) {
  const auto spec = nlohmann::json::parse(evaluate_spec_text(options, "/tmp/run"));
  return std::get<EvaluateSpec>(parse_job_spec(spec, "/", "test").options);
}

EvaluateOptions some_options() {
  EvaluateOptions options;
  options.images = "samples";
  options.reference = "cifar10.npz";
  options.detector = "inception.safetensors";
  return options;
}

TEST(Evaluate, TheSpecIsAWholeJobWithAbsolutePaths) {
  EvaluateOptions options = some_options();
  options.resize = "clean_fid";
  options.lanczos = 256;
  options.metrics = {"fid", "is"};
  const EvaluateSpec spec = spec_of(options);
  EXPECT_EQ(spec.source, "images");
  EXPECT_TRUE(spec.images.starts_with('/') && spec.images.ends_with("/samples"));
  EXPECT_TRUE(spec.reference.starts_with('/') && spec.reference.ends_with("/cifar10.npz"));
  EXPECT_TRUE(spec.detector.starts_with('/'));
  EXPECT_EQ(spec.resize, "clean_fid");
  EXPECT_EQ(spec.lanczos, 256);
  EXPECT_THAT(spec.metrics, ElementsAre("fid", "is"));
  EXPECT_GT(spec.count, 1'000'000'000);  // all
  options.count = 7;
  EXPECT_EQ(spec_of(options).count, 7);
}

TEST(Evaluate, AnImageFileIsAReferenceToo) {
  EvaluateOptions options = some_options();
  options.reference = "digits.h5";
  EXPECT_TRUE(spec_of(options).dataset.path.ends_with("/digits.h5"));
  EXPECT_EQ(spec_of(options).reference, "");
}

TEST(Evaluate, TheDetectorComesFromTheEnvironmentWhenNotGiven) {
  EvaluateOptions options = some_options();
  options.detector = "";
  unsetenv("ONESTEP_INCEPTION");
  const auto error = error_of([&] { spec_of(options); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kUsage);
  EXPECT_THAT(error->message, HasSubstr("ONESTEP_INCEPTION"));
  setenv("ONESTEP_INCEPTION", "/weights/inception.safetensors", 1);
  EXPECT_EQ(spec_of(options).detector, "/weights/inception.safetensors");
  unsetenv("ONESTEP_INCEPTION");
}

TEST(Evaluate, WhatIsMissingIsNamed) {
  const TempFolder folder;
  EvaluateOptions options = some_options();
  const auto message = [&] { return error_of([&] { evaluate_images(options); })->message; };
  options.images = folder / "none";
  EXPECT_THAT(message(), HasSubstr("--images " + options.images + ": expected a folder"));
  options.images = folder.path();
  options.reference = folder / "none.npz";
  EXPECT_THAT(message(), HasSubstr("--reference " + options.reference + ": expected"));
  options.reference = "";
  options.detector = folder / "none.safetensors";
  EXPECT_THAT(message(), HasSubstr("--detector " + options.detector + ": expected"));
  spit(options.detector, "");
  options.save = folder / "no/such/file.npz";
  EXPECT_THAT(message(), HasSubstr("--save "));
}

}  // namespace
}  // namespace onestep
