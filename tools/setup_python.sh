#!/usr/bin/env bash
# Makes the Python environment of the PyTorch twins and golden-value recipes where it is missing, and prints the path of
# its python. The programs and the tests need none of it. Environment: ONESTEP_CACHE (default ~/.cache/onestep).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${ONESTEP_CACHE:-${HOME:?HOME is not set}/.cache/onestep}
folder=$cache/py
python=$folder/bin/python
log=$cache/setup-python.log
pins=$root/tools/python.txt
done_file=$folder/installed.txt

# torch.compile compiles C++ that includes Python.h.
has_headers() {
  "$1" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
}

install() {
  has_headers /usr/bin/python3 ||
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends python3-dev ||
    return 1
  if ! [ -x "$python" ]; then
    rm -rf "$folder"
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends python3-venv &&
      /usr/bin/python3 -m venv "$folder" || return 1
  fi
  # The torch wheel that tools/setup.sh has checked, where it is there; what it depends on comes from the package index.
  local torch=("$cache"/wheels/torch-2.11.0-*.whl)
  [ -f "${torch[0]}" ] || torch=(torch==2.11.0)
  "$python" -m pip install --disable-pip-version-check --no-input --progress-bar off "${torch[@]}" -r "$pins" &&
    cp "$pins" "$done_file"
}

if ! cmp -s "$pins" "$done_file"; then
  echo "making $folder for the PyTorch twins (some gigabytes to download)" >&2
  if ! install >"$log" 2>&1 </dev/null; then
    echo "failed: the PyTorch twins' environment; the last lines of $log:" >&2
    tail -n 40 "$log" >&2
    exit 1
  fi
fi
echo "$python"
