#!/usr/bin/env bash
# The coordinator under slowhttptest: clients that send their header, send their body or read their answer drop by drop.
#
#   slow_clients_test.sh PROGRAMS_FOLDER
#
# 200 of them: every other client is served meanwhile, and each of the 200 is thrown out. 400, more than there are connections
# (docs/security.md): others are told so, and served again once the slow ones are thrown out.
set -euo pipefail

programs=$1
timeout_s=30  # of a request; docs/security.md
folder=$(mktemp -d /tmp/onestep-slow.XXXXXX)
coordinator=
prober=

fail() {
  printf 'slow clients: FAILED: %s\n' "$*" >&2
  tail -n 20 "$folder/log" >&2 || true
  exit 1
}

clean_up() {
  [ -z "$prober" ] || kill "$prober" 2>/dev/null || true
  [ -z "$coordinator" ] || kill "$coordinator" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$folder"
}
trap clean_up EXIT

if ! command -v slowhttptest >/dev/null; then
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends slowhttptest >"$folder/install.log" 2>&1 ||
    { cat "$folder/install.log" >&2; fail "slowhttptest is missing and could not be installed"; }
fi

"$programs/onestep-coordinator" --data "$folder/data" --listen 127.0.0.1:0 >"$folder/log" 2>&1 &
coordinator=$!
url=
for _ in $(seq 300); do
  url=$(sed -n 's/^onestep-coordinator listening on \(http:[^ ,]*\).*/\1/p' "$folder/log")
  [ -z "$url" ] || break
  sleep 0.1
done
[ -n "$url" ] || fail "the coordinator did not start"

status() { curl -s -o /dev/null -w '%{http_code}' --max-time 3 "$url/readyz" || true; }
descriptors() { find "/proc/$coordinator/fd" -mindepth 1 | wc -l; }
memory_kb() { sed -n 's/^VmRSS:[ \t]*\([0-9]*\).*/\1/p' "/proc/$coordinator/status"; }

probe_until_killed() {
  while :; do
    status >>"$folder/probes"
    echo >>"$folder/probes"
    sleep 0.5
  done
}

# attack CONNECTIONS OPTIONS...: `held` becomes how many connections the coordinator still had 8 s after a request's time was over.
# (What a client sees is later: it still reads, drop by drop, what was sent before it was thrown out.)
attack() {
  local connections=$1 slow
  shift
  : >"$folder/probes"
  probe_until_killed &
  prober=$!
  (cd "$folder" && exec slowhttptest -c "$connections" -r 100 -i 5 -l $((timeout_s + 15)) -p 3 -g -o attack "$@" >attack.log 2>&1) &
  slow=$!
  sleep $((timeout_s + connections / 100 + 8))
  held=$(($(descriptors) - idle))
  wait "$slow" || { cat "$folder/attack.log" >&2; fail "slowhttptest $* did not run"; }
  kill "$prober"
  wait "$prober" 2>/dev/null || true
  prober=
  kill -0 "$coordinator" || fail "the coordinator died of $*"
  # Seconds, closed, pending, connected, service available.
  most=$(cut -d, -f4 "$folder/attack.csv" | sort -n | tail -n 1 | tr -d ' ')
}

before=$(memory_kb)
idle=$(descriptors)
for mode in "-H -u $url/api/v1/jobs" "-B -t POST -f application/json -s 4096 -u $url/api/v1/jobs" \
  "-X -u $url/api/v1/openapi.json -w 1 -y 16 -n 2 -z 8 -k 4"; do
  # shellcheck disable=SC2086
  attack 200 $mode
  [ "$most" -ge 150 ] || fail "$mode: only $most slow clients at a time: nothing was tried"
  [ "$held" -le 3 ] || fail "$mode: $held slow clients were still there"  # a probe is no slow client
  others=$(sort "$folder/probes" | uniq -c | tr -s ' \n' ' ')
  ! grep -qv '^200$' "$folder/probes" || fail "$mode: other clients were answered$others"
  echo "slow clients: $mode: $most at a time, all thrown out; others:$others"
done

attack 400 -H -u "$url/api/v1/jobs"
[ "$most" -ge 250 ] || fail "too many: only $most at a time"
grep -q '^503$' "$folder/probes" || fail "too many: nobody was told so"
! grep -qv '^\(200\|503\)$' "$folder/probes" || fail "too many: other clients were answered $(sort "$folder/probes" | uniq -c)"
[ "$(status)" = 200 ] || fail "too many: not served again"
after=$(memory_kb)
[ $((after - before)) -lt 65536 ] || fail "memory went from $before to $after kB"
echo "slow clients: 400: others were told so, and served again afterwards; memory $before kB, then $after kB"
