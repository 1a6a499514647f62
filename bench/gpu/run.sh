#!/usr/bin/env bash
# Measures Onestep on this machine's GPU against PyTorch, or checks its kernels there.
#
#   bench/gpu/run.sh tests             every kernel against its twin on the processor, graphs against eager; a line a check
#   bench/gpu/run.sh CASE...           both sides of these cases; each adds a result to bench/gpu/results/<device>.json
#   bench/gpu/run.sh all               every case; --list prints their names
#
# Needs build/gpu/ (ninja onestep-bench-gpu onestep-gpu-tests) and a Python with PyTorch of CUDA: ONESTEP_PYTHON, else python3. The programs find libtorch
# and CUDA's libraries in that Python's folders; ONESTEP_TORCH names another folder that holds `torch` and `nvidia`. One case takes less than eight
# minutes; ONESTEP_TWIN_SECONDS (default 240) bounds the PyTorch side.
#
# Exit status: 0 done, 1 when a check fails or the two sides differ, 2 for wrong arguments or without a GPU.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
programs=${ONESTEP_GPU_PROGRAMS:-$root/build/gpu}
python=${ONESTEP_PYTHON:-python3}

refuse() {
  printf 'bench/gpu: %s\n' "$*" >&2
  exit 2
}

case ${1:-} in
  '' | -h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d'
    [ -n "${1:-}" ] || exit 2
    exit 0
    ;;
esac

names=$(sed -n 's/^CASES = //p' "$root/bench/gpu/drive.py" | tr -d '()",')
if [ "$1" = --list ]; then
  tr ' ' '\n' <<<"$names"
  exit 0
fi
for name in "$@"; do
  case " tests all $names " in
    *" $name "*) ;;
    *) refuse "expected tests, all or one of $names; found $name" ;;
  esac
done

# Without torch's own start, which takes seconds: is there a GPU at all?
devices=${ONESTEP_GPU_NODES:-/dev} # another folder for tests
ls "$devices"/nvidia[0-9]* >/dev/null 2>&1 || refuse "expected an NVIDIA GPU ($devices/nvidia0), found none on this machine"
torch=${ONESTEP_TORCH:-$("$python" -c 'import importlib.util, os; print(os.path.dirname(os.path.dirname(importlib.util.find_spec("torch").origin)))' 2>/dev/null || true)}
[ -n "$torch" ] && [ -e "$torch/torch/lib/libtorch_cuda.so" ] ||
  refuse "expected a Python with PyTorch of CUDA ($python), or ONESTEP_TORCH; found no libtorch_cuda.so in ${torch:-its folders}"
for program in onestep-gpu-tests onestep-bench-gpu; do
  [ -x "$programs/$program" ] || refuse "expected $programs/$program; build it with: ninja -C build $program"
done
libraries=$torch/torch/lib
for folder in "$torch"/nvidia/*/lib; do libraries+=:$folder; done
libraries+=:$programs/lib

status=0
for name in "$@"; do
  if [ "$name" = tests ]; then
    LD_LIBRARY_PATH=$libraries "$programs/onestep-gpu-tests" || { status=$? && [ "$status" -ne 3 ] || refuse "CUDA finds no device that it can use"; status=1; }
  else
    [ "$name" = all ] && name=$names
    # shellcheck disable=SC2086
    "$python" "$root/bench/gpu/drive.py" --program "$programs/onestep-bench-gpu" --libraries "$libraries" --results "$root/bench/gpu/results" \
      --twin-seconds "${ONESTEP_TWIN_SECONDS:-240}" $name || status=1
  fi
done
exit "$status"
