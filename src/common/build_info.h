// Which build this is: goes into manifests, reports and telemetry.
#pragma once

namespace onestep {

const char* build_commit();   // 12 hex digits of the git commit, or "unknown"
const char* build_version();  // "0.1.0"

}  // namespace onestep
