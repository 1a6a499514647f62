#!/usr/bin/env bash
# Makes the Python environment of the dashboard's browser tests where it is missing, installs Debian's Chromium where it is
# missing, and prints the path of the environment's python. Environment: ONESTEP_CACHE (default ~/.cache/onestep).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/python_environment.sh"

if ! [ -x /usr/bin/chromium ]; then
  echo "installing Chromium for the browser tests" >&2
  mkdir -p "$cache"
  log=$cache/setup-chromium.log
  if ! { apt-get -o DPkg::Lock::Timeout=600 update && debian chromium fonts-dejavu-core; } >"$log" 2>&1 </dev/null; then
    echo "failed: Chromium; the last lines of $log:" >&2
    tail -n 40 "$log" >&2
    exit 1
  fi
fi
need_environment browser "the browser tests"
echo "$cache/browser/bin/python"
