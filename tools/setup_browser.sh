#!/usr/bin/env bash
# Makes the Python environment of the dashboard's browser tests where it is missing, installs Debian's Chromium where it is
# missing, and prints the path of the environment's python. Environment: ONESTEP_CACHE (default ~/.cache/onestep).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${ONESTEP_CACHE:-${HOME:?HOME is not set}/.cache/onestep}
folder=$cache/browser
python=$folder/bin/python
log=$cache/setup-browser.log
pins=$root/tools/browser.txt
done_file=$folder/installed.txt

install() {
  if ! [ -x /usr/bin/chromium ] || ! /usr/bin/python3 -c 'import ensurepip' 2>/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -o DPkg::Lock::Timeout=600 update &&
      apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends chromium fonts-dejavu-core python3-venv || return 1
  fi
  cmp -s "$pins" "$done_file" && return
  rm -rf "$folder"
  /usr/bin/python3 -m venv "$folder" &&
    "$python" -m pip install --disable-pip-version-check --no-input --progress-bar off --no-deps -r "$pins" &&
    cp "$pins" "$done_file"
}

mkdir -p "$cache"
if ! cmp -s "$pins" "$done_file" || ! [ -x /usr/bin/chromium ]; then
  echo "making $folder for the browser tests" >&2
  if ! install >"$log" 2>&1 </dev/null; then
    echo "failed: the browser tests' environment; the last lines of $log:" >&2
    tail -n 40 "$log" >&2
    exit 1
  fi
fi
echo "$python"
