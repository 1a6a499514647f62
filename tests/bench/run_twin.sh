#!/usr/bin/env bash
# Every case's stand-in on the processor against its PyTorch twin: the two sides must compute the same.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=$("$root/tools/setup_python.sh")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck disable=SC2046
OMP_NUM_THREADS=1 "$python" "$root/bench/gpu/drive.py" --program "$1" --results "$scratch" --device cpu --small --seconds 0 --twin-seconds 0 \
  $("$root/bench/gpu/run.sh" --list)
