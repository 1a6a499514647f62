#!/usr/bin/env python3
"""Forward and backward of each network against PyTorch's own, on one thread; a JSON line each.

    python3 bench/networks.py --program build/bin/onestep-bench-networks --python ~/.cache/onestep/py/bin/python \
        --scratch /tmp/x [--names NAME...] [--seconds 4] [--rounds 3]

Both sides have the same weights and inputs, keyed draws, and run in turns. Times are the processor's, which neighbours on the machine stretch
least. Of each side the best pass of all rounds counts; PyTorch's is the better of contiguous and channels_last. Outputs and the norms of all
gradients must agree, else the case fails whatever the times are.
"""
import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path

GOAL = 1.0
# fp32 against fp32 over up to some hundred layers. Where ReLUs are, rounding decides some, which moves single gradients by 3e-3.
OUTPUT_TOLERANCE, GRADIENT_TOLERANCE, RELU_TOLERANCE = 1e-5, 1e-4, 1e-2
RELU_NETWORKS = ("tiny_autoencoder", "vgg_lpips")
TWIN = Path(__file__).resolve().parent / "twins" / "networks_twin.py"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def output_of(command):
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    if result.returncode != 0 or not result.stdout.strip():
        sys.exit(f"bench: {' '.join(command)} failed with status {result.returncode}:\n{result.stderr[-4000:]}")
    return result.stdout.strip()


def run(command):
    """Returns the JSON object on the last line of what the command prints."""
    return json.loads(output_of(command).splitlines()[-1])


def differences(ours, theirs):
    """Of the outputs' values, and of the norms of all gradients; a bias of the keys has none but rounding."""
    a, b = ours["output"], theirs["output"]
    if len(a) != len(b):
        sys.exit(f"bench: expected equally many values of both sides, found {len(a)} and {len(b)}")
    # A gradient that one side leaves out is zero on the other: a parameter that the output does not hang on.
    mine, other = ours["gradient_norms"], theirs["gradient_norms"]
    largest = max(other.values())
    worst = 0.0
    for name in mine.keys() | other.keys():
        x, y = mine.get(name, 0.0), other.get(name, 0.0)
        if max(x, y) > 1e-5 * largest:
            worst = max(worst, abs(x - y) / max(x, y))
    return {"output": math.dist(a, b) / math.hypot(*b), "gradients": worst}


def measure(arguments, name):
    description = Path(arguments.scratch) / f"{name}.json"
    description.write_text(output_of([arguments.program, "--describe", name]))
    timing = ["--seconds", str(arguments.seconds)]
    twin = [arguments.python, str(TWIN), "--description", str(description), *timing]
    commands = {"ours": [arguments.program, "--time", name, *timing], "contiguous": twin,
                "channels_last": [*twin, "--memory-format", "channels_last"]}
    results = {side: [] for side in commands}
    for round_ in range(arguments.rounds):
        for side, command in commands.items():
            print(f"bench: networks/{name}: round {round_ + 1} of {arguments.rounds}: {side}", file=sys.stderr)
            results[side].append(run(command))
    best = {side: min(r["seconds"] for r in rounds) for side, rounds in results.items()}
    difference = differences(results["ours"][0], results["contiguous"][0])
    allowed = RELU_TOLERANCE if name in RELU_NETWORKS else GRADIENT_TOLERANCE
    ratio = min(best["contiguous"], best["channels_last"]) / best["ours"]
    return {"name": f"networks/{name}", "ratio": round(ratio, 3), "goal": GOAL, "at_most": False,
            "pass": ratio >= GOAL and difference["output"] <= OUTPUT_TOLERANCE and difference["gradients"] <= allowed,
            "milliseconds": {side: round(1000 * seconds, 1) for side, seconds in best.items()}, "relative_difference": difference,
            "limit": "one core's arithmetic in convolutions and matrix products, which both sides hand to the same libraries"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", required=True)
    parser.add_argument("--python", required=True, help="an interpreter that has torch, diffusers, transformers, lpips and xxhash")
    parser.add_argument("--scratch", required=True, help="a folder for the descriptions")
    parser.add_argument("--names", nargs="+", help="default: all")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for name in arguments.names or output_of([arguments.program, "--list"]).split():
        print(json.dumps(measure(arguments, name)), flush=True)


if __name__ == "__main__":
    main()
