#!/usr/bin/env python3
"""Inception's images/s against pytorch-fid's, and the Fréchet distance's time against scipy's sqrtm; a JSON line each.

    python3 bench/inception.py --program build/bin/onestep-bench-inception --python ~/.cache/onestep/py/bin/python \
        --scratch /tmp/x [--seconds 10] [--rounds 3]

Both sides read the same weights, pictures and statistics, and run on one thread, in turns. Of each side the best round counts.
Features must agree, and so must the three values of the distance, else the case fails whatever the times are.
"""
import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path

TWIN = Path(__file__).resolve().parent / "twins" / "inception_twin.py"
FEATURE_TOLERANCE = 1e-5  # fp32 over 48 layers
FRECHET_TOLERANCE = 1e-6  # of eigh in fp64, and of sqrtm at full rank
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def run(command):
    """Returns the JSON object on the last line of what the command prints."""
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    if result.returncode != 0 or not result.stdout.strip():
        sys.exit(f"bench: {' '.join(command)} failed with status {result.returncode}:\n{result.stderr[-4000:]}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def measure_features(arguments):
    weights = str(Path(arguments.scratch) / "inception.safetensors")
    subprocess.run([arguments.program, "--write", weights], check=True)
    timing = ["--seconds", str(arguments.seconds)]
    commands = {"ours": [arguments.program, "--time", weights, *timing],
                "pytorch_fid": [arguments.python, str(TWIN), "--weights", weights, *timing]}
    results = {side: [] for side in commands}
    for round_ in range(arguments.rounds):
        for side, command in commands.items():
            print(f"bench: inception/features: round {round_ + 1} of {arguments.rounds}: {side}", file=sys.stderr)
            results[side].append(run(command))
    best = {side: max(r["images_per_second"] for r in rounds) for side, rounds in results.items()}
    ours, theirs = results["ours"][0]["features"], results["pytorch_fid"][0]["features"]
    difference = math.dist(ours, theirs) / math.hypot(*theirs)
    ratio = best["ours"] / best["pytorch_fid"]
    return {"name": "inception/features", "ratio": round(ratio, 3), "goal": 1.0, "at_most": False,
            "pass": ratio >= 1.0 and difference <= FEATURE_TOLERANCE,
            "images_per_second": {side: round(rate, 2) for side, rate in best.items()}, "relative_difference": difference,
            "limit": "one core's arithmetic in the convolutions, which both sides hand to the same oneDNN"}


def measure_frechet(arguments):
    statistics = str(Path(arguments.scratch) / "statistics.npz")
    run([arguments.python, str(TWIN), "--statistics", statistics])
    ours = [run([arguments.program, "--frechet", statistics]) for _ in range(arguments.rounds)]
    sqrtm = run([arguments.python, str(TWIN), "--frechet", statistics])
    eigh = run([arguments.python, str(TWIN), "--frechet", statistics, "--eigh"])
    value = ours[0]["frechet"]
    seconds = min(result["seconds"] for result in ours)
    difference = {"eigh": abs(value / eigh["frechet"] - 1), "sqrtm": abs(value / sqrtm["frechet"] - 1)}
    ratio = seconds / sqrtm["seconds"]
    return {"name": "inception/frechet_2048", "ratio": round(ratio, 4), "goal": 0.2, "at_most": True,
            "pass": ratio <= 0.2 and max(difference.values()) <= FRECHET_TOLERANCE,
            "seconds": {"ours": round(seconds, 2), "sqrtm": round(sqrtm["seconds"], 2), "eigh": round(eigh["seconds"], 2)},
            "relative_difference": difference, "scipy": sqrtm["scipy"],
            "limit": "two symmetric eigenvalue problems of 2,048, whose reduction to tridiagonal form is bound by memory"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", required=True)
    parser.add_argument("--python", required=True, help="an interpreter that has torch, pytorch-fid, safetensors and scipy")
    parser.add_argument("--scratch", required=True, help="a folder for weights and statistics")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(json.dumps(measure_features(arguments)), flush=True)
    print(json.dumps(measure_frechet(arguments)), flush=True)


if __name__ == "__main__":
    main()
