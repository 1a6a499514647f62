#!/usr/bin/env bash
# Writes docs/parity.md: runs the tests that compare with references and collects what they found.
#
#   tools/parity.sh [DOCUMENT]     default docs/parity.md; some ten minutes and 10 GB, for the networks at their published size
#   tools/parity.sh --check        writes nothing; fails when the committed table lacks a row that a test records, or has another one
#
# Needs a build (tools/setup.sh). Exit status: 0 when every component has a row and every row passes, 1 when not.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
document=$root/docs/parity.md mode=
case ${1-} in
  --check) mode=$1 ;;
  -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
  "") ;;
  -*)
    printf 'parity: unknown option %s; expected --check\n' "$1" >&2
    exit 2
    ;;
  *) document=$1 ;;
esac

reports=$(mktemp -d "${TMPDIR:-/tmp}/onestep-parity.XXXXXX")
trap 'rm -rf "$reports"' EXIT

status=0
while read -r program; do
  printf 'parity: %s\n' "$program" >&2
  if ! "$root/build/tests/$program" --gtest_output="json:$reports/$program.json" >"$reports/log" 2>&1 </dev/null; then
    tail -n 40 "$reports/log" >&2
    status=1
  fi
done <"$root/build/parity_programs.txt"

"$root/build/bin/write_parity" "$reports" "$document" $mode || status=1
exit "$status"
