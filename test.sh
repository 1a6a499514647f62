#!/usr/bin/env bash
# Sets up, builds and runs every test.
#
#   ./test.sh [--all] [ctest arguments]      e.g. ./test.sh -R Checkpoint
#
# --all runs the long tests too, and those that set up a Slurm cluster and containers on this machine. Ends with ctest's summary and the number of skipped tests.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
labels=(--label-exclude '^(long|slurm|container)$')
arguments=()
for argument in "$@"; do
  case $argument in
    --all) labels=() ;;
    *) arguments+=("$argument") ;;
  esac
done

"$root/tools/setup.sh"

log=$root/build/test.log
status=0
ctest --test-dir "$root/build" --output-on-failure --no-tests=error "${labels[@]}" "${arguments[@]}" \
  </dev/null 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
skipped=$(grep -cE '\*\*\*(Skipped|Not Run)' "$log" || true)
echo "skipped tests: $skipped"
if [ "$status" -ne 0 ]; then
  echo "tests FAILED (ctest exit status $status)"
  exit "$status"
fi
grep -E '^[0-9]+% tests passed' "$log"
