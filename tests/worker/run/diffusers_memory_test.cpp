// What loading costs in memory, at published size: Stable Diffusion 1.5's U-Net, 3.4 GB on disk for the time of the test.
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "support/files.h"
#include "support/temp_folder.h"
#include "worker/run/diffusers_export.h"

namespace onestep {
namespace {

// "VmHWM", "VmRSS": of this process, in bytes.
std::int64_t status_bytes(const std::string& key) {
  const std::string status = slurp("/proc/self/status");
  return std::stoll(status.substr(status.find(key + ":") + key.size() + 1)) * 1024;
}

std::int64_t write_published_unet(const TempFolder& folder) {
  SdDenoiser denoiser(SdUnetConfig{}, {});
  std::int64_t bytes = 0;
  torch::NoGradGuard no_grad;
  for (auto& parameter : denoiser.module().parameters()) {
    parameter.fill_(0.5);
    bytes += static_cast<std::int64_t>(parameter.nbytes());
  }
  export_unet_file(folder / "diffusion_pytorch_model.safetensors", denoiser, DType::kF32);
  spit(folder / "config.json", to_diffusers_json(SdUnetConfig{}).dump());
  spit(folder / "scheduler_config.json",
       R"({"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})");
  return bytes;
}

// How far loading lifts the peak of a process that has nothing else in it.
std::int64_t peak_of_loading(const std::string& folder) {
  std::int64_t growth = -1;
  try {
    ::malloc_trim(0);
    spit("/proc/self/clear_refs", "5");  // the peak starts again from here
    const std::int64_t before = status_bytes("VmRSS");
    const auto denoiser = load_sd_denoiser(folder, folder);
    growth = status_bytes("VmHWM") - before;
  } catch (...) {  // -1 says it
  }
  return growth;
}

TEST(DiffusersMemory, LoadingNeedsOneCopy) {
  const TempFolder folder;
  const std::int64_t bytes = write_published_unet(folder);
  EXPECT_EQ(bytes, 4 * std::int64_t{859'520'964});
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const std::int64_t growth = peak_of_loading(folder.path());
    ::_exit(::write(ends[1], &growth, sizeof(growth)) == sizeof(growth) ? 0 : 1);
  }
  std::int64_t growth = 0;
  EXPECT_EQ(::read(ends[0], &growth, sizeof(growth)), static_cast<ssize_t>(sizeof(growth)));
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  ::close(ends[0]);
  ::close(ends[1]);
  RecordProperty("growth", std::to_string(growth));
  EXPECT_GE(growth, bytes);             // all of it was read
  EXPECT_LE(growth, bytes / 10 * 11);   // and nothing twice: map, copy once, let go
}

}  // namespace
}  // namespace onestep
