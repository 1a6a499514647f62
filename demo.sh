#!/usr/bin/env bash
# The whole product once: real images in, a one-step generator out, through the service.
#
#   ./demo.sh [digits] [--out DIR]    handwritten digits by class: configs/digits/pipeline.json (default: demo-out)
#   ./demo.sh text [--out DIR]        emoji by their names, for diffusers: configs/sd15/tiny.json (default: demo-out-text)
#
# Sets up and builds what is missing, starts a coordinator, submits the pipeline, follows it and leaves DIR/report.json
# and DIR/grid.png; text also DIR/captions.png. On a finished DIR it shows the result; on one that was stopped half-way it
# goes on where that stopped.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
onestep=$root/build/bin/onestep
pipeline_file=$root/configs/digits/pipeline.json
out=
default_out=demo-out
ready_limit_s=60

fail() {
  printf 'demo: %s\n' "$*" >&2
  exit 1
}

usage() { sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

what=digits
while [ $# -gt 0 ]; do
  case $1 in
    digits) shift ;;
    text) what=text pipeline_file=$root/configs/sd15/tiny.json default_out=demo-out-text; shift ;;
    --out) [ $# -ge 2 ] || { usage >&2; exit 2; }; default_out=; out=$2; shift 2 ;;
    --out=*) default_out=; out=${1#--out=}; shift ;;
    -h | --help) usage; exit 0 ;;
    *) printf 'demo: unknown argument %s\n' "$1" >&2; usage >&2; exit 2 ;;
  esac
done
out=${out:-$default_out}
[ -n "$out" ] || fail "--out: expected a folder, found nothing"

# The address and process of a coordinator that an earlier demo left running on this folder, or nothing.
running_coordinator() {
  local file=$data/coordinator.address pid http
  [ -f "$file" ] || return 0
  pid=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$file")
  http=$(sed -n 's/.*"http": *"\([^"]*\)".*/\1/p' "$file")
  if [ -n "$pid" ] && tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF -- "$data"; then
    echo "$pid http://$http"
  fi
}

# watch COMMAND...: runs it so that a signal to this script is acted upon at once, not at the command's end.
watch() {
  local result=0
  "$@" &
  watched=$!
  wait "$watched" || result=$?
  watched=
  return "$result"
}

stop_all() {
  [ -z "$watched" ] || kill -TERM "$watched" 2>/dev/null || true
  stop_coordinator
}

stop_coordinator() {
  [ -n "$coordinator" ] || return 0
  kill -TERM "$coordinator" 2>/dev/null || true
  while kill -0 "$coordinator" 2>/dev/null; do sleep 0.1; done
  coordinator=
}

start_coordinator() {
  local deadline=$((SECONDS + ready_limit_s))
  # A session of its own: Ctrl-C is for this script, which then stops it in good order.
  setsid "$onestep" up --data "$data" --listen 127.0.0.1:0 --root "$root" --stop-workers >"$out/coordinator.log" 2>&1 </dev/null &
  coordinator=$!
  url=
  while [ -z "$url" ]; do
    url=$(sed -n 's/^onestep-coordinator listening on \(http:[^ ,]*\).*/\1/p' "$out/coordinator.log")
    if ! kill -0 "$coordinator" 2>/dev/null; then
      coordinator=
      cat "$out/coordinator.log" >&2
      fail "the coordinator did not start"
    fi
    [ "$SECONDS" -lt "$deadline" ] || fail "the coordinator was not ready after $ready_limit_s s; see $out/coordinator.log"
    sleep 0.1
  done
}

show_result() {
  "$onestep" report --out "$out"
  show_captions
  exit 0
}

# The captioned picture of text to image.
show_captions() {
  [ "$what" = text ] || return 0
  [ -f "$out/captions.png" ] || "$("$root/tools/setup_emoji.sh" | tail -n 1)" "$root/tools/emoji_grid.py" "$out/data/jobs" "$root/build/data/emoji" "$out/captions.png" >/dev/null
  echo "$(cd "$out" && pwd)/captions.png"
}

# Finished: nothing to set up, start or compute.
if [ -f "$out/report.json" ] && [ -f "$out/grid.png" ] && [ -x "$onestep" ]; then show_result; fi

"$root/tools/setup.sh" --programs || fail "the set-up failed; nothing was started"
if [ "$what" = text ]; then "$root/tools/setup_emoji.sh" >/dev/null || fail "the emoji were not drawn; nothing was started"; fi
if [ -f "$out/report.json" ] && [ -f "$out/grid.png" ]; then show_result; fi

mkdir -p "$out"
out=$(cd "$out" && pwd)
data=$out/data
coordinator=
watched=
trap stop_all EXIT
trap 'echo "demo: stopping; run it again to go on" >&2; exit 130' INT
trap 'exit 143' TERM

read -r coordinator url <<<"$(running_coordinator)" || true
if [ -n "$coordinator" ]; then
  echo "demo: using the coordinator that runs at $url"
else
  start_coordinator
  echo "demo: coordinator at $url, everything is kept in $out"
fi
export ONESTEP_URL=$url

# One data folder holds one pipeline: the one that an earlier run submitted, or a new one.
pipeline=$("$onestep" jobs --json | grep -o '"pipeline":"[^"]*"' | head -n 1 | cut -d'"' -f4 || true)
status=0
if [ -n "$pipeline" ]; then
  echo "demo: going on with $pipeline"
  watch "$onestep" follow "$pipeline" --resume || status=$?
else
  watch "$onestep" submit "$pipeline_file" --follow || status=$?
  pipeline=$("$onestep" jobs --json | grep -o '"pipeline":"[^"]*"' | head -n 1 | cut -d'"' -f4 || true)
fi
if [ "$status" -ne 0 ]; then
  echo "demo: failed; the jobs' logs are in $data/jobs/*/logs, the coordinator's in $out/coordinator.log" >&2
  exit "$status"
fi
echo
"$onestep" report "$pipeline" --out "$out"
show_captions
