#!/usr/bin/env bash
# Builds docker/Dockerfile and runs docker/compose.yaml with podman, as an operator would with docker.
#
#   container_test.sh BUILD_FOLDER
#
# The image holds the programs of BUILD_FOLDER (its Debian package). Needs root; exit status 77 (skipped) without it or where
# containers can't be made.
set -euo pipefail

build=$(cd "$1" && pwd)
support=$(cd "$(dirname "${BASH_SOURCE[0]}")/../support" && pwd)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
image=localhost/onestep-test
base=localhost/debian:12
project=onestep-test-$$
container=${project}_onestep_1
folder=$(mktemp -d /tmp/onestep-container.XXXXXX)
trap 'rm -rf "$folder"' EXIT

say() { printf '%s\n' "container: $*"; }
fail() {
  printf 'container: FAILED: %s\n' "$*" >&2
  { tail -n 20 "$folder"/*.log; podman logs --tail 30 "$container"; } >&2 2>&1 || true
  exit 1
}
skip() {
  say "skipped: $*"
  exit 77
}

[ "$(id -u)" = 0 ] || skip "needs root"
packages=(podman podman-compose runc debootstrap catatonit)
if ! dpkg-query -W "${packages[@]}" >/dev/null 2>&1; then
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends "${packages[@]}" \
    >"$folder/install.log" 2>&1 || skip "${packages[*]}: one is missing and can't be installed"
fi
# crun and higher limits are not to be had everywhere.
cat >"$folder/containers.conf" <<'CONF'
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1000:4000"]
[engine]
runtime = "runc"
CONF
export CONTAINERS_CONF=$folder/containers.conf
# What podman-compose 1.0.3 can't do: the host's network; timers of health checks without systemd.
cat >"$folder/override.yaml" <<'YAML'
services:
  onestep:
    network_mode: ""
    healthcheck:
      interval: disable
YAML

if ! podman image exists "$base"; then
  say "makes a base image"
  debootstrap --variant=minbase bookworm "$folder/base" >"$folder/debootstrap.log" 2>&1 ||
    skip "no Debian mirror: $(tail -n 1 "$folder/debootstrap.log")"
  cp /etc/apt/apt.conf.d/* "$folder/base/etc/apt/apt.conf.d/"
  tar -C "$folder/base" -cf - . | podman import --quiet - "$base" >/dev/null || skip "podman can't import an image"
  rm -rf "$folder/base"
fi
podman run --rm --network=none "$base" true >"$folder/run.log" 2>&1 || skip "podman can't run a container here: $(tail -n 1 "$folder/run.log")"

say "builds the image"
cpack --config "$build/CPackConfig.cmake" -B "$folder/package" >"$folder/cpack.log" 2>&1 || fail "no Debian package"
# The context is the project with this build's package and data.
mkdir -p "$folder/context/build"
cp -r "$root"/{docker,.dockerignore} "$folder/context/"
mkdir "$folder/context/build/package"
mv "$folder"/package/onestep_*_amd64.deb "$folder/context/build/package/"
cp -r "$build/data" "$folder/context/build/"
podman build --layers=false --network=host --build-arg PROGRAMS=package --build-arg BASE="$base" \
  -f "$folder/context/docker/Dockerfile" -t "$image" "$folder/context" >"$folder/build.log" 2>&1 || fail "the image can't be built"
rm -rf "$folder/context"

export ONESTEP_IMAGE=$image ONESTEP_DATASETS=$build/data
compose() { podman-compose -p "$project" -f "$root/docker/compose.yaml" -f "$folder/override.yaml" "$@" >>"$folder/compose.log" 2>&1; }
inside() { podman exec "$container" "$@"; }
clean_up() {
  compose down -t 5 || true
  podman rm --force "$container" >/dev/null 2>&1 || true
  podman volume rm "${project}_onestep-data" >/dev/null 2>&1 || true
  podman network rm "${project}_default" >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap clean_up EXIT
. "$support/eventually.sh"
job_is() { inside onestep show teacher --json | grep -q "\"state\":\"$1\""; }
has_checkpoint() { inside sh -c 'ls /data/jobs/teacher-1/checkpoints/*/manifest.json'; }

say "the image has no compilers and no Python, and its user is not root"
podman run --rm --network=none "$image" sh -c '! command -v gcc && ! command -v g++ && ! command -v make && ! command -v python3 && [ "$(id -u)" != 0 ]' ||
  fail "the image"

cat >"$folder/job.json" <<'JSON'
{"name": "teacher", "kind": "train_teacher", "ranks": 2, "micro_batches": 4, "seed": 3,
 "dataset": {"path": "/datasets/digits.h5", "resolution": 14},
 "network": {"attention_resolutions": []}, "images": 6400, "batch": 128, "checkpoint": {"every_iterations": 10}}
JSON

say "compose up, a health check, a job"
compose up -d onestep
eventually 30 "the coordinator answers" inside onestep jobs
podman healthcheck run "$container" >/dev/null || fail "the health check fails"
podman cp "$folder/job.json" "$container:/data/job.json"
inside onestep submit /data/job.json >/dev/null
eventually 120 "a checkpoint" has_checkpoint

say "down lets it save, up goes on"
compose down -t 90
! podman container exists "$container" || fail "down left the container"
compose up -d onestep
eventually 60 "the job runs again" job_is running
eventually 240 "the job succeeds" job_is succeeded
inside onestep show teacher --json >"$folder/show.json"
grep -q '"number":2' "$folder/show.json" || fail "it was never interrupted"
grep -q 'saved in' "$folder/show.json" || fail "it did not save before it was stopped"
digest=$(grep -o '"digest":"[0-9a-f]\{64\}"' "$folder/show.json" | head -n 1)

say "the same bits as undisturbed"
alone=$(podman run --rm --network=none -v "$build/data:/datasets:ro" -v "$folder/job.json:/job.json:ro" "$image" \
  onestep-worker /job.json --output /data/run | tail -n 1 | grep -o '"digest":"[0-9a-f]\{64\}"')
[ -n "$digest" ] && [ "$digest" = "$alone" ] || fail "digest: expected $alone, found $digest"

say "done"
