#!/usr/bin/env python3
"""Pairs a second in the order of training against h5py's, from files that the system has in memory; one JSON line.

    python3 bench/pair_reading.py --program build/bin/onestep-bench-pair-reading --scratch /tmp/x [--rounds 3]

Both sides read the same rows in the same order and must find the same sums. Of each side the best round counts.
"""
import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

TWIN = Path(__file__).resolve().parent / "twins" / "pair_reading_twin.py"


def run(command):
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0 or not result.stdout.strip():
        sys.exit(f"bench: {' '.join(command)} failed with status {result.returncode}:\n{result.stderr[-4000:]}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", required=True)
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    folder, order = str(Path(arguments.scratch) / "pairs"), str(Path(arguments.scratch) / "order")
    subprocess.run([arguments.program, "--write", folder], check=True)
    ours, theirs = [], []
    for _ in range(arguments.rounds):
        ours.append(run([arguments.program, "--time", folder, "--order", order]))
        theirs.append(run(["/usr/bin/python3", str(TWIN), "--set", folder, "--order", order]))
    best = {side: max(results, key=lambda r: r["rows_per_second"]) for side, results in (("ours", ours), ("h5py", theirs))}
    agrees = all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-6) for a, b in zip(best["ours"]["sums"], best["h5py"]["sums"]))
    ratio = best["ours"]["rows_per_second"] / best["h5py"]["rows_per_second"]
    print(json.dumps({"name": "pair_reading", "ratio": round(ratio, 2), "goal": 5.0, "at_most": False, "pass": ratio >= 5 and agrees,
                      "rows_per_second": {side: round(result["rows_per_second"]) for side, result in best.items()},
                      "h5py_way": best["h5py"]["way"], "h5py": best["h5py"]["h5py"], "sums_agree": agrees,
                      "limit": "two calls of the system a row, and the copy out of its memory"}), flush=True)


if __name__ == "__main__":
    main()
