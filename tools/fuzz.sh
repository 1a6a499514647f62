#!/usr/bin/env bash
# Fuzzes the readers of other people's files with libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer (Debian's clang).
#
#   tools/fuzz.sh [TARGET...] [SECONDS]      default: every target, 60 seconds each;  e.g. tools/fuzz.sh safetensors npz 600
#
# Targets are tests/fuzz/<target>_fuzz.cpp. What they find stays in build-fuzz/fuzz/grown/<target>, so that the next run goes on from there; an
# input that kills one is in build-fuzz/fuzz/found/<target>: give it to tests/fuzz/seeds.cpp with the fix. Exit status: 0 when nothing was
# found, 1 when something was, 2 for an unknown target.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build-fuzz seconds=60
known=() targets=()
for source in "$root"/tests/fuzz/*_fuzz.cpp; do
  name=${source##*/}
  known+=("${name%_fuzz.cpp}")
done
for argument in "$@"; do
  case $argument in
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    [0-9]*) seconds=$argument ;;
    *)
      [[ " ${known[*]} " == *" $argument "* ]] || {
        printf 'fuzz: unknown target %s; expected some of: %s\n' "$argument" "${known[*]}" >&2
        exit 2
      }
      targets+=("$argument")
      ;;
  esac
done
[ "${#targets[@]}" -gt 0 ] || targets=("${known[@]}")

command -v clang++ >/dev/null || {
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends clang libclang-rt-14-dev >&2
}
[ -f "$build/build.ninja" ] ||
  CC=clang CXX=clang++ cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DONESTEP_FUZZ=ON \
    -DONESTEP_SANITIZE=address,undefined >&2
ninja -C "$build" "${targets[@]/#/fuzz_}" >&2

status=0
for target in "${targets[@]}"; do
  mkdir -p "$build/fuzz/grown/$target" "$build/fuzz/found/$target"
  log=$build/fuzz/$target.log
  # HDF5 and libpng allocate what a header says: sizes that are refused must be refused before that.
  if LSAN_OPTIONS="suppressions=$root/tests/fuzz/leaks.txt:print_suppressions=0" "$build/fuzz/fuzz_$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=3000 -artifact_prefix="$build/fuzz/found/$target/" \
    "$build/fuzz/grown/$target" "$build/fuzz/corpus/$target" >"$log" 2>&1 </dev/null; then
    printf 'fuzz: %s: %s\n' "$target" "$(tail -n 1 "$log")"
  else
    printf 'fuzz: %s: FOUND something, see %s:\n' "$target" "$log"
    grep -m 3 -E 'ERROR|runtime error|SUMMARY|Test unit written' "$log" || tail -n 5 "$log"
    status=1
  fi
done
exit "$status"
