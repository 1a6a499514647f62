#!/usr/bin/env bash
# Quality of DMD2's options on the digits over seeds: what docs/recipes.md holds.
#
#   bench/dmd2_quality.sh [--out DIR] [--table] [--teacher-images N] [SEED...]      (default: build/dmd2-quality; 11 21 31)
#
# For each seed the jobs of configs/digits/dmd2_quality.json, one after another, by the worker alone on 2 ranks: a teacher, and a student
# of it by each recipe. Stopped (Ctrl-C, or killed), it goes on where it was when it is started again: finished jobs stand, the
# one that ran goes on from its newest checkpoint. Prints a Markdown table, a line a seed, of the jobs that are done; --table: that alone.
# --teacher-images: another teacher than the pipeline's, for a quick look; in a DIR of its own.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$root/build/dmd2-quality
runs=1
teacher_images=
seeds=()
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2; shift 2 ;;
    --table) runs=; shift ;;
    --teacher-images) teacher_images=$2; shift 2 ;;
    *) seeds+=("$1"); shift ;;
  esac
done
[ "${#seeds[@]}" -gt 0 ] || seeds=(11 21 31)
mkdir -p "$out"
out=$(cd "$out" && pwd)
[ -z "$runs" ] || "$root/tools/setup.sh" >&2

exec /usr/bin/python3 - "$root" "$out" "$runs" "$teacher_images" "${seeds[@]}" <<'PYTHON'
import json, os, pathlib, signal, subprocess, sys, time

root, out, runs, teacher_images, *seeds = sys.argv[1:]
root, out = pathlib.Path(root), pathlib.Path(out)
PIPELINE = root / "configs" / "digits" / "dmd2_quality.json"
STUDENTS = ("dmd", "no_regression", "ttur", "gan", "two_steps", "four_steps")
# Rank 0's neighbours wait by yielding: the machine may be shared.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OMPI_MCA_mpi_yield_when_idle": "1"}


def resolved(value, folder):
    """References to jobs and paths of the pipeline file, made absolute."""
    if isinstance(value, dict):
        return {k: resolved(v, folder) for k, v in value.items()}
    if isinstance(value, list):
        return [resolved(v, folder) for v in value]
    if isinstance(value, str) and value.startswith("@"):
        return str(folder / value[1:])
    if isinstance(value, str) and value.startswith("../"):
        return str((PIPELINE.parent / value).resolve())
    return value


def seed_of(job, seed):
    """The detector and the judged noise are the same for all; the rest as in bench/quality.sh."""
    offsets = {"train_teacher": 0, "generate_pairs": 1, "distill": 2}
    return seed + offsets[job["kind"]] if job["kind"] in offsets else job.get("seed", 0)


def outcome(folder):
    file = folder / "outcome.json"
    return json.loads(file.read_text())["result"] if file.exists() else None


def run(job, folder):
    if outcome(folder) is not None:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    spec = folder.parent / f"{folder.name}.json"
    spec.write_text(json.dumps(job))
    mpirun = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(job.get("ranks", 1))]
    if os.geteuid() == 0:
        mpirun.insert(1, "--allow-run-as-root")
    started = time.monotonic()
    with open(folder.parent / f"{folder.name}.log", "a") as log:
        command = mpirun + [str(root / "build/bin/onestep-worker"), str(spec), "--output", str(folder)]
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)  # it saves where it is
            process.wait()
            sys.exit(130)
    if status != 0:
        sys.exit(f"{spec}: exit {status}; see {log.name}")
    print(f"{folder}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


pipeline = json.loads(PIPELINE.read_text())["jobs"]
for seed in map(int, seeds):
    for job in pipeline if runs else ():
        # One detector for all: FD is measured by the same features.
        folder = out / "detector" if job["kind"] == "train_detector" else out / str(seed) / job["name"]
        spec = resolved({k: v for k, v in job.items() if k != "after"}, out / str(seed))
        if "detector" in spec:
            spec["detector"] = str(out / "detector")
        if job["kind"] in ("train_teacher", "distill"):
            spec["checkpoint"] = {"every_iterations": 200, "keep_last": 1}
        if job["kind"] == "train_teacher" and teacher_images:
            spec["images"] = int(teacher_images)
        run(spec | {"seed": seed_of(job, seed)}, folder)

print("| seed | teacher, 18 steps | " + " | ".join(name.replace("_", " ") for name in STUDENTS) + " |")
print("| --- " * (2 + len(STUDENTS)) + "|")
for seed in seeds:
    cells = []
    for name in ("teacher", *STUDENTS):
        judged = outcome(out / seed / f"evaluate_{name}")
        cells.append("" if judged is None else f"{judged['frechet']:.2f} ({judged['class_accuracy']:.3f})")
    print(f"| {seed} | " + " | ".join(cells) + " |")
PYTHON
