#!/usr/bin/env bash
# Makes the Python environment of the contract's test (schemathesis) where it is missing, and prints the path of its python.
# Environment: ONESTEP_CACHE (default ~/.cache/onestep).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${ONESTEP_CACHE:-${HOME:?HOME is not set}/.cache/onestep}
folder=$cache/contract
python=$folder/bin/python
log=$cache/setup-contract.log
pins=$root/tools/contract.txt
done_file=$folder/installed.txt

install() {
  if ! /usr/bin/python3 -c 'import ensurepip' 2>/dev/null; then
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends python3-venv || return 1
  fi
  rm -rf "$folder"
  /usr/bin/python3 -m venv "$folder" &&
    "$python" -m pip install --disable-pip-version-check --no-input --progress-bar off --no-deps -r "$pins" &&
    cp "$pins" "$done_file"
}

mkdir -p "$cache"
if ! cmp -s "$pins" "$done_file"; then
  echo "making $folder for the contract's test" >&2
  if ! install >"$log" 2>&1 </dev/null; then
    echo "failed: the contract test's environment; the last lines of $log:" >&2
    tail -n 40 "$log" >&2
    exit 1
  fi
fi
echo "$python"
