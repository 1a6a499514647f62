#!/usr/bin/env python3
"""Images/s of the digits teacher's training: two ranks against one, and telemetry on against off; a JSON line each.

    python3 bench/training.py --bin build/bin --dataset build/data/digits.h5 --scratch /tmp/x [--only ranks,telemetry] [--rounds 5]

Rounds of both sides take turns; the best of each counts. Every run of one kind must end in the same weights.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

IMAGES = {"ranks": 25_600, "telemetry": 12_800}


# As the coordinator starts a worker.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


class Bench:
    def __init__(self, arguments):
        self.bin = Path(arguments.bin).resolve()
        self.dataset = str(Path(arguments.dataset).resolve())
        self.scratch = Path(arguments.scratch).resolve()
        self.rounds = arguments.rounds
        self.count = 0

    def spec(self, case, ranks):
        self.count += 1
        # Reports after every iteration: ten times as often as by default, so that what they cost is seen.
        spec = {"name": f"teacher{self.count}", "kind": "train_teacher", "ranks": ranks, "micro_batches": 2, "seed": 11,
                "dataset": {"path": self.dataset, "resolution": 14}, "network": {"attention_resolutions": []},
                "images": IMAGES[case], "batch": 128, "report_every": 1 if case == "telemetry" else 10}
        path = self.scratch / f"{spec['name']}.json"
        path.write_text(json.dumps(spec))
        return path, spec["name"]

    def alone(self, case, ranks):
        path, name = self.spec(case, ranks)
        result = subprocess.run(["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(ranks),
                                 self.bin / "onestep-worker", path, "--output", self.scratch / name], env=ENVIRONMENT,
                                capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"bench: {name} failed:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
        return self.outcome(self.scratch / name)

    def served(self, case, url):
        path, name = self.spec(case, 1)
        client = [self.bin / "onestep"]
        subprocess.run([*client, "submit", path, "--url", url], check=True, capture_output=True)
        while True:
            job = json.loads(subprocess.run([*client, "show", name, "--json", "--url", url], check=True, capture_output=True).stdout)
            if job["state"] in ("failed", "cancelled", "interrupted"):
                sys.exit(f"bench: {name} is {job['state']}: {job['reason']}")
            if job["state"] == "succeeded":
                return self.outcome(Path(job["run_folder"]))
            time.sleep(1)

    @staticmethod
    def outcome(folder):
        outcome = json.loads((folder / "outcome.json").read_text())
        return outcome["result"]["images_per_second"], outcome["digest"]

    def compare(self, sides):
        rates, digests = {name: [] for name in sides}, set()
        for round_ in range(self.rounds):
            for name, side in sides.items():
                print(f"bench: round {round_ + 1} of {self.rounds}: {name}", file=sys.stderr)
                rate, digest = side()
                rates[name].append(rate)
                digests.add(digest)
        return {name: max(values) for name, values in rates.items()}, len(digests) == 1

    def ranks(self):
        best, same = self.compare({"one": lambda: self.alone("ranks", 1), "two": lambda: self.alone("ranks", 2)})
        ratio = best["two"] / best["one"]
        print(json.dumps({"name": "training/ranks", "ratio": round(ratio, 3), "goal": 1.8, "at_most": False, "pass": ratio >= 1.8 and same,
                          "images_per_second": {k: round(v) for k, v in best.items()}, "same_weights": same,
                          "limit": "two cores share the memory and what its processor lends either alone"}), flush=True)

    def telemetry(self):
        process = subprocess.Popen([self.bin / "onestep-coordinator", "--data", self.scratch / "data", "--listen", "127.0.0.1:0", "--root", "/"],
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            url = re.search(r"http://[0-9.:]+", process.stdout.readline()).group(0)
            best, same = self.compare({"off": lambda: self.alone("telemetry", 1), "on": lambda: self.served("telemetry", url)})
        finally:
            process.terminate()
            process.wait()
        ratio = best["off"] / best["on"]
        print(json.dumps({"name": "training/telemetry", "ratio": round(ratio, 4), "goal": 1.01, "at_most": True,
                          "pass": ratio <= 1.01 and same, "images_per_second": {k: round(v) for k, v in best.items()}, "same_weights": same,
                          "limit": "a report an iteration goes to a thread of its own"}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="ranks,telemetry")
    arguments = parser.parse_args()
    bench = Bench(arguments)
    for case in arguments.only.split(","):
        getattr(bench, case)()


if __name__ == "__main__":
    main()
