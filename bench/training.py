#!/usr/bin/env python3
"""Images/s of the digits teacher's training: two ranks against one, and telemetry on against off; a JSON line each.

    python3 bench/training.py --bin build/bin --dataset build/data/digits.h5 --scratch /tmp/x [--only ranks,telemetry] [--rounds 5]

Rounds of both rank counts take turns; the best of each counts. With telemetry and without it, both sides are under way at
once and one of them is stopped at any time, in turns of a quarter of a second: what the machine lends them drifts by more
than the hundredth to be seen. Every run of one kind must end in the same weights.
"""
import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

IMAGES = {"ranks": 25_600, "telemetry": 25_600}
# Of telemetry: seconds one side runs before it is the other's turn, and the processor time that a start may take.
TURN, START_UP = 0.25, 2.0


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
        return self.run_alone(*self.spec(case, ranks), ranks)

    def run_alone(self, path, name, ranks):
        result = subprocess.run(["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(ranks),
                                 self.bin / "onestep-worker", path, "--output", self.scratch / name], env=ENVIRONMENT,
                                capture_output=True, text=True)
        if result.returncode != 0:
            raise RuntimeError(f"{name} failed:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
        return self.outcome(self.scratch / name)

    def run_served(self, path, name, url):
        client = [self.bin / "onestep"]
        subprocess.run([*client, "submit", path, "--url", url], check=True, capture_output=True)
        while True:
            job = json.loads(subprocess.run([*client, "show", name, "--json", "--url", url], check=True, capture_output=True).stdout)
            if job["state"] in ("failed", "cancelled", "interrupted"):
                raise RuntimeError(f"{name} is {job['state']}: {job['reason']}")
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
        seconds, digests = {"off": [], "on": []}, set()
        try:
            url = re.search(r"http://[0-9.:]+", process.stdout.readline()).group(0)
            for round_ in range(self.rounds):
                print(f"bench: round {round_ + 1} of {self.rounds}: off and on in turns of {TURN} s", file=sys.stderr)
                with ThreadPoolExecutor(2) as pool:
                    paths = [self.spec("telemetry", 1) for _ in range(2)]
                    runs = [pool.submit(self.run_alone, *paths[0], 1), pool.submit(self.run_served, *paths[1], url)]
                    workers = [Worker(str(self.scratch / paths[0][1])), Worker(f"--job-id {paths[1][1]}-")]
                    take_turns(workers, runs)
                    for name, worker, run in zip(seconds, workers, runs):
                        seconds[name].append(worker.seconds)
                        digests.add(run.result()[1])
        finally:
            process.terminate()
            process.wait()
        ratios = [on / off for on, off in zip(seconds["on"], seconds["off"])]
        ratio, same = statistics.median(ratios), len(digests) == 1
        print(json.dumps({"name": "training/telemetry", "ratio": round(ratio, 4), "goal": 1.01, "at_most": True,
                          "pass": ratio <= 1.01 and same, "rounds": [round(each, 4) for each in ratios],
                          "seconds": {name: round(statistics.median(values), 2) for name, values in seconds.items()}, "same_weights": same,
                          "limit": "a report an iteration goes to a thread of its own"}), flush=True)


class Worker:
    """A worker's process, found by a part of its command line, and the seconds it was let run since it had started up."""

    def __init__(self, mark):
        self.pid, self.seconds = None, 0.0
        deadline = time.monotonic() + 60
        while self.pid is None:
            if time.monotonic() > deadline:
                sys.exit(f"bench: no worker with '{mark}' in its command line")
            time.sleep(0.01)
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                except OSError:
                    continue
                if words[0].endswith("/onestep-worker") and mark in " ".join(words):
                    self.pid = int(folder.name)
        self.signal(signal.SIGSTOP)

    def signal(self, number):
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def processor_s(self):
        """None once it has ended."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] == "Z" else (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def take_turns(workers, runs):
    """Lets one of the workers run at a time, so that what the machine lends is the same for both; each one's seconds are
    those it ran after its first START_UP seconds of processor time. Ends when all have."""
    try:
        while any(worker.processor_s() is not None for worker in workers):
            for worker in workers:
                used = worker.processor_s()
                if used is None:
                    continue
                worker.signal(signal.SIGCONT)
                begin = time.monotonic()
                while (left := begin + TURN - time.monotonic()) > 0 and worker.processor_s() is not None:
                    time.sleep(min(left, 0.002))
                worker.signal(signal.SIGSTOP)
                if used >= START_UP:
                    worker.seconds += time.monotonic() - begin
            for run in runs:
                if run.done() and run.exception():
                    raise run.exception()
    finally:
        for worker in workers:
            worker.signal(signal.SIGCONT)


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
