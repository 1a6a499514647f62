#!/usr/bin/env bash
# What reads the coordinator's figures in tests, where it is missing: a Python environment with TensorBoard's own reader
# (monitoring.txt), and promtool out of Debian's prometheus package, which is unpacked and not installed, so that no service
# starts. Prints the folder: FOLDER/bin/python, FOLDER/promtool. Environment: ONESTEP_CACHE (default ~/.cache/onestep).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${ONESTEP_CACHE:-${HOME:?HOME is not set}/.cache/onestep}
folder=$cache/monitoring
log=$cache/setup-monitoring.log
pins=$root/tools/monitoring.txt
done_file=$folder/installed.txt

install() {
  if ! /usr/bin/python3 -c 'import ensurepip' 2>/dev/null; then
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends python3-venv || return 1
  fi
  rm -rf "$folder"
  /usr/bin/python3 -m venv "$folder" &&
    "$folder/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off --no-deps -r "$pins" || return 1
  mkdir "$folder/package" && cd "$folder/package" && apt-get download prometheus && dpkg -x prometheus_*.deb . &&
    cp usr/bin/promtool "$folder/promtool" && cd / && rm -r "$folder/package" && cp "$pins" "$done_file"
}

mkdir -p "$cache"
if ! cmp -s "$pins" "$done_file"; then
  echo "making $folder for the tests of monitoring" >&2
  if ! install >"$log" 2>&1 </dev/null; then
    echo "failed: the environment of the tests of monitoring; the last lines of $log:" >&2
    tail -n 40 "$log" >&2
    exit 1
  fi
fi
echo "$folder"
