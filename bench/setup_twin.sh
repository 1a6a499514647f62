#!/usr/bin/env bash
# Makes the Python environment of the PyTorch twins where it is missing, and prints the path of its python.
# Nothing but benchmarks and golden-value recipes needs it. Environment: ONESTEP_CACHE (default ~/.cache/onestep).
set -euo pipefail

cache=${ONESTEP_CACHE:-${HOME:?HOME is not set}/.cache/onestep}
folder=$cache/py
python=$folder/bin/python
log=$cache/setup-twin.log

works() { "$python" -c 'import numpy, safetensors, torch; assert torch.__version__.startswith("2.11.0")' 2>/dev/null; }

# torch.compile compiles C++ that includes Python.h.
has_headers() {
  "$1" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
}

install() {
  has_headers /usr/bin/python3 ||
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends python3-dev ||
    return 1
  rm -rf "$folder"
  /usr/bin/python3 -m venv --without-pip "$folder" || return 1
  # The wheel that tools/setup.sh has checked; what it depends on comes from the package index.
  /usr/bin/python3 -m pip --python "$python" install --disable-pip-version-check --no-input --progress-bar off \
    "$cache"/wheels/torch-2.11.0-*.whl numpy==2.4.6 safetensors==0.8.0
}

if ! [ -x "$python" ] || ! works; then
  echo "bench: making $folder for the PyTorch twins (some gigabytes to download)" >&2
  if ! install >"$log" 2>&1 </dev/null || ! works; then
    echo "bench: failed: the PyTorch twins' environment; the last lines of $log:" >&2
    tail -n 40 "$log" >&2
    exit 1
  fi
fi
echo "$python"
