#!/usr/bin/env bash
# Tries what the OpenAPI document promises on a coordinator of its own: tests/contract/run.sh PROGRAMS_FOLDER [CASES]
# Event streams are left out: they have no end to wait for.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$("$here/../../tools/setup_contract.sh")
programs=$1
cases=${2:-5000}
scratch=$(mktemp -d)
coordinator=
finish() {
  [ -z "$coordinator" ] || kill "$coordinator" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$scratch"
}
trap finish EXIT

cp "$here/schemathesis.toml" "$scratch"
"$programs/onestep-coordinator" --data "$scratch/data" --root "$scratch" --listen 127.0.0.1:0 --slots 1 --queue 20 >"$scratch/log" 2>&1 &
coordinator=$!
for _ in $(seq 300); do
  url=$(sed -n 's/^onestep-coordinator listening on \(http:[^ ,]*\).*/\1/p' "$scratch/log")
  [ -z "$url" ] || break
  sleep 0.1
done
# A job to ask about.
curl -sf -H 'Content-Type: application/json' "$url/api/v1/jobs" \
  -d '{"spec":{"name":"detector","kind":"train_detector","dataset":{"path":"missing.h5"}},"base":"'"$scratch"'"}' >/dev/null

status=0
(cd "$scratch" && NO_COLOR=1 "$python" -m schemathesis.cli run "$url/api/v1/openapi.json" --seed 1 --workers 1 --request-timeout 20 \
  --exclude-operation-id jobEvents --exclude-operation-id pipelineEvents --exclude-operation-id allEvents \
  --max-examples $((cases / 100)) --phases examples,coverage,fuzzing --continue-on-failure) >"$scratch/report" 2>&1 || status=$?
tail -n 200 "$scratch/report"
if grep -q '"status":500\|internal error' "$scratch/log"; then
  echo "the coordinator's log has errors:"
  grep 'internal error' "$scratch/log" | head
  status=1
fi
kill -0 "$coordinator" || { echo "the coordinator has died"; status=1; }
generated=$(sed -n 's/^ *\([0-9,]*\) generated.*/\1/p' "$scratch/report" | tr -d ,)
echo "cases: ${generated:-none}, at least $cases wanted"
[ "${generated:-0}" -ge "$cases" ] || status=1
exit "$status"
