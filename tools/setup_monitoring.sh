#!/usr/bin/env bash
# What reads the coordinator's figures in tests, where it is missing: a Python environment with TensorBoard's own reader
# (monitoring.txt), and promtool out of Debian's prometheus package, which is unpacked and not installed, so that no service
# starts. Prints the folder: FOLDER/bin/python, FOLDER/promtool. Environment: ONESTEP_CACHE (default ~/.cache/onestep).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/python_environment.sh"

unpack_promtool() {
  mkdir "$1/package" && cd "$1/package" && apt-get download prometheus && dpkg -x prometheus_*.deb . &&
    cp usr/bin/promtool "$1/promtool" && cd / && rm -r "$1/package"
}

need_environment monitoring "the tests of monitoring" unpack_promtool
echo "$cache/monitoring"
