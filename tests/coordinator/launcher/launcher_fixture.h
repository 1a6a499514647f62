// A run folder, programs of the test's own in place of real ones, and waiting for processes.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "coordinator/launcher/launcher.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {

// Real processes end when they end: polled, with a limit that only a broken launcher reaches.
inline bool eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 2000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

class LauncherTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(run_ + "/logs");
    script("worker", "exit 0");
  }

  std::string script(const std::string& name, const std::string& body) {
    const std::string path = folder_ / name;
    spit(path, "#!/bin/bash\nRUN=" + run_ + "\n" + body + "\n");
    ::chmod(path.c_str(), 0755);
    return path;
  }
  LaunchRequest request(int ranks = 2) const {
    LaunchRequest request;
    request.job = "distill-4";
    request.attempt = 3;
    request.ranks = ranks;
    request.run_folder = run_;
    request.coordinator_file = "/data/coordinator.address";
    return request;
  }
  static ProcessEnd wait_for_end(Launcher& launcher, const ProcessIdentity& process) {
    std::optional<ProcessEnd> end;
    EXPECT_TRUE(eventually([&] { return (end = launcher.poll(process)).has_value(); }));
    return end.value_or(ProcessEnd{});
  }

  TempFolder folder_;
  std::string run_ = folder_ / "run";
};

}  // namespace onestep
