#!/usr/bin/env bash
# Measures Onestep against other implementations, both sides in turns on this machine, after the usual set-up and build.
#
#   bench/run.sh [NAME...]      (default: all)
#
#   allreduce     the sum of one order against MPI_Allreduce: 2 ranks; 1, 16 and 64 million floats; about half a minute
#   train_step    one training step against its PyTorch twin, eager and compiled: batches of 32 and 128, one thread;
#                 about ten minutes, and a Python environment of 5 GB in the cache folder when there is none yet
#   inception     Inception's features against pytorch-fid's; the Frechet distance of 2,048 dimensions against scipy's sqrtm
#   pair_reading  pairs a second in the order of training against h5py's; a minute
#   training      images/s of two ranks against one, and with telemetry against without; about five minutes
#   service       the coordinator with 100,000 jobs and 10 million metric points: requests, submissions, readers of events,
#                 256 and 4,096 ranks, beside a plain server and a plain write and fsync; about ten minutes, most of it to fill the
#                 database of 1.5 GB in TMPDIR; ONESTEP_SOAK=SECONDS adds as long a run of everything at once
#   networks      forward and backward of each network against PyTorch's own, one thread; about ten minutes
#
# Each case ends with one JSON line: name, ratio, goal, at_most (the ratio may not be above the goal; else not below),
# pass, and what limits it. Exit status: 0 when every case passes, 1 when one does not, 2 for an unknown name. The machine
# should have nothing else to do.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cases=(allreduce train_step inception networks pair_reading training service)
scratch=

fail() {
  printf 'bench: %s\n' "$*" >&2
  exit 1
}

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

clean_up() { [ -z "$scratch" ] || rm -rf "$scratch"; }
trap clean_up EXIT

run_allreduce() {
  mpirun --allow-run-as-root --oversubscribe --bind-to none -n 2 "$root/build/bin/onestep-bench-allreduce"
}

run_train_step() {
  local python
  python=$("$root/tools/setup_python.sh")
  /usr/bin/python3 "$root/bench/train_step.py" --program "$root/build/bin/onestep-bench-train-step" --python "$python" \
    --scratch "$scratch"
}

run_inception() {
  local python
  python=$("$root/tools/setup_python.sh")
  /usr/bin/python3 "$root/bench/inception.py" --program "$root/build/bin/onestep-bench-inception" --python "$python" \
    --scratch "$scratch"
}

run_pair_reading() {
  /usr/bin/python3 "$root/bench/pair_reading.py" --program "$root/build/bin/onestep-bench-pair-reading" --scratch "$scratch"
}

run_training() {
  /usr/bin/python3 "$root/bench/training.py" --bin "$root/build/bin" --dataset "$root/build/data/digits.h5" --scratch "$scratch"
}

run_service() {
  /usr/bin/python3 "$root/bench/service.py" --program "$root/build/bin/onestep-bench-service" \
    --coordinator "$root/build/bin/onestep-coordinator" --scratch "$scratch" --soak "${ONESTEP_SOAK:-0}"
}

run_networks() {
  local python
  python=$("$root/tools/setup_python.sh")
  /usr/bin/python3 "$root/bench/networks.py" --program "$root/build/bin/onestep-bench-networks" --python "$python" \
    --scratch "$scratch"
}

names=()
for argument in "$@"; do
  case $argument in
    -h | --help) usage; exit 0 ;;
    allreduce | train_step | inception | networks | pair_reading | training | service) names+=("$argument") ;;
    *)
      printf 'bench: unknown name %s; expected some of: %s\n' "$argument" "${cases[*]}" >&2
      exit 2
      ;;
  esac
done
[ "${#names[@]}" -gt 0 ] || names=("${cases[@]}")

"$root/tools/setup.sh" >&2
scratch=$(mktemp -d "${TMPDIR:-/tmp}/onestep-bench.XXXXXX")
for name in "${names[@]}"; do
  "run_$name" | tee -a "$scratch/lines" || fail "$name did not finish"
done
! grep -q '"pass": *false' "$scratch/lines"
