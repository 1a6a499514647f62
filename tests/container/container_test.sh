#!/usr/bin/env bash
# Builds docker/Dockerfile and runs docker/compose.yaml with podman, as an operator would with docker.
#
#   container_test.sh BUILD_FOLDER
#
# The image holds the programs of BUILD_FOLDER (its Debian package); a network namespace keeps ports apart. Needs root; exit
# status 77 (skipped) without it or where containers can't be made.
set -euo pipefail

build=$(cd "$1" && pwd)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
image=localhost/onestep-test
export COMPOSE_PROJECT_NAME=onestep-test-$$ ONESTEP_IMAGE=$image

say() { printf '%s\n' "container: $*"; }
fail() {
  printf 'container: FAILED: %s\n' "$*" >&2
  podman logs "$container" 2>&1 | tail -n 30 >&2 || true
  exit 1
}
skip() {
  say "skipped: $*"
  exit 77
}

# The rest of this script in a network of its own.
if [ -z "${ONESTEP_CONTAINER_TEST:-}" ]; then
  [ "$(id -u)" = 0 ] || skip "needs root"
  for program in podman podman-compose runc debootstrap; do
    command -v "$program" >/dev/null && continue
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends podman podman-compose runc \
      debootstrap >/dev/null 2>&1 || skip "podman, podman-compose, runc or debootstrap is missing and can't be installed"
    break
  done
  unshare --net true 2>/dev/null || skip "no network namespaces here"
  folder=$(mktemp -d /tmp/onestep-container.XXXXXX)
  trap 'rm -rf "$folder"' EXIT
  export folder
  # crun and higher limits are not to be had everywhere.
  cat >"$folder/containers.conf" <<'CONF'
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1000:4000"]
[engine]
runtime = "runc"
CONF
  export CONTAINERS_CONF=$folder/containers.conf
  if ! podman image exists localhost/debian:12; then
    say "makes a base image"
    debootstrap --variant=minbase bookworm "$folder/base" >"$folder/debootstrap.log" 2>&1 || skip "no Debian mirror: $(tail -n 1 "$folder/debootstrap.log")"
    cp /etc/apt/apt.conf.d/* "$folder/base/etc/apt/apt.conf.d/"
    tar -C "$folder/base" -cf - . | podman import --quiet - localhost/debian:12 >/dev/null || skip "podman can't import an image"
    rm -rf "$folder/base"
  fi
  say "builds the image"
  rm -rf "$build/package"
  cpack --config "$build/CPackConfig.cmake" -B "$build/package" >/dev/null 2>&1
  # The context is the project with this build's package and data.
  mkdir -p "$folder/context/build"
  cp -r "$root"/{docker,.dockerignore} "$folder/context/"
  cp -r "$build/package" "$build/data" "$folder/context/build/"
  podman build --quiet --network=host --format docker --build-arg PROGRAMS=package --build-arg BASE=localhost/debian:12 \
    -f "$folder/context/docker/Dockerfile" -t "$image" "$folder/context" >"$folder/build.log" 2>&1 ||
    { tail -n 20 "$folder/build.log" >&2; exit 1; }
  ONESTEP_CONTAINER_TEST=1 unshare --net "${BASH_SOURCE[0]}" "$build"
  exit
fi

ip link set lo up
container=${COMPOSE_PROJECT_NAME}_onestep_1
compose() { podman-compose -f "$root/docker/compose.yaml" "$@" >>"$folder/compose.log" 2>&1; }
inside() { podman exec "$container" "$@"; }
clean_up() {
  compose down --volumes || true
  podman rm --force --volumes "$container" >/dev/null 2>&1 || true
  podman volume rm "${COMPOSE_PROJECT_NAME}_onestep-data" >/dev/null 2>&1 || true
}
trap clean_up EXIT
# eventually SECONDS TEXT COMMAND...
eventually() {
  local end=$((SECONDS + $1)) text=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || fail "not within time: $text"
    sleep 0.2
  done
}
job_is() { inside onestep show teacher --json | grep -q "\"state\":\"$1\""; }
has_checkpoint() { inside sh -c 'ls /data/jobs/teacher-1/checkpoints/*/manifest.json'; }

say "the image has no compilers and no Python, and its user is not root"
podman run --rm --network=host "$image" sh -c '! command -v gcc && ! command -v g++ && ! command -v make && ! command -v python3 && [ "$(id -u)" != 0 ]' ||
  { printf 'container: FAILED: the image\n' >&2; exit 1; }

cat >"$folder/job.json" <<'JSON'
{"name": "teacher", "kind": "train_teacher", "ranks": 2, "micro_batches": 4, "seed": 3,
 "dataset": {"path": "/datasets/digits.h5", "resolution": 14},
 "network": {"attention_resolutions": []}, "images": 12800, "batch": 128, "checkpoint": {"every_iterations": 10}}
JSON

say "compose up, a health check, a job"
export ONESTEP_DATASETS=$build/data
compose up -d onestep
eventually 30 "the coordinator answers" inside onestep jobs
podman healthcheck run "$container" >/dev/null || fail "the health check fails"
podman cp "$folder/job.json" "$container:/data/job.json"
inside onestep submit /data/job.json >/dev/null
eventually 120 "a checkpoint" has_checkpoint

say "down lets it save, up goes on"
compose down
! podman container exists "$container" || fail "down left the container"
compose up -d onestep
eventually 60 "the job runs again" job_is running
eventually 240 "the job succeeds" job_is succeeded
inside onestep show teacher --json >"$folder/show.json"
grep -q '"number":2' "$folder/show.json" || fail "it was never interrupted"
grep -q 'saved and stopped\|stops' "$folder/show.json" || fail "it did not save before it was stopped"
digest=$(grep -o '"digest":"[0-9a-f]\{64\}"' "$folder/show.json" | head -n 1)

say "the same bits as undisturbed"
alone=$(podman run --rm --network=host -v "$build/data:/datasets:ro" -v "$folder/job.json:/job.json:ro" "$image" \
  onestep-worker /job.json --output /data/run | tail -n 1 | grep -o '"digest":"[0-9a-f]\{64\}"')
[ -n "$digest" ] && [ "$digest" = "$alone" ] || fail "digest: expected $alone, found $digest"

say "done"
