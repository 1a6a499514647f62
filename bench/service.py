#!/usr/bin/env python3
"""What the coordinator holds, on a data folder with 100,000 jobs and 10 million metric points; a JSON line each.

    python3 bench/service.py --program build/bin/onestep-bench-service --coordinator build/bin/onestep-coordinator \
        --scratch /tmp/x [--jobs 100000] [--points 10000000] [--only start,requests,submit,events,ranks256,ranks4096] [--soak SECONDS]

The load generator runs on the same machine. Requests are sent when they are due, whether or not the last one has been answered,
so a server that stands still is seen in the latencies.
"""
import argparse
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

RUNNING = "pairs-running"
CASES = ["start", "requests", "submit", "events", "ranks256", "ranks4096"]


def line(name, ratio, goal, good, limit, **figures):
    print(json.dumps({"name": f"service/{name}", "ratio": round(ratio, 3), "goal": goal, "at_most": True,
                      "pass": bool(good and ratio <= goal), **figures, "limit": limit}), flush=True)


class Process:
    """A server that prints `listening on [http://]HOST:PORT`; ended with the block."""

    def __init__(self, command, log):
        self.begun = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=open(log, "ab"), text=True)
        found = re.search(r"listening on (?:http://)?([0-9.:]+)", self.process.stdout.readline())
        if not found:
            sys.exit(f"bench: {command[0]} did not start; see {log}")
        self.start_s = time.monotonic() - self.begun
        self.server = found.group(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def memory_mb(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.data = str(Path(arguments.scratch) / "data")
        self.log = str(Path(arguments.scratch) / "coordinator.log")
        # Stands for the mpirun of the running job, so that the coordinator finds what it has started.
        self.stand_in = subprocess.Popen(["sleep", "infinity"])
        self.iteration = 0
        self.shard = 0

    def load(self, *words):
        command = [self.arguments.program, *map(str, words)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"bench: {' '.join(command)} failed with status {result.returncode}:\n{result.stderr[-4000:]}")
        return json.loads(result.stdout.strip().splitlines()[-1])

    def start_load(self, *words):
        return subprocess.Popen([self.arguments.program, *map(str, words)], stdout=subprocess.PIPE, text=True)

    def fill(self, folder, ranks, jobs, points):
        print(f"bench: service: filling {folder}: {jobs} jobs, {points} points", file=sys.stderr)
        self.load("fill", "--data", folder, "--jobs", jobs, "--points", points, "--ranks", ranks, "--pid", self.stand_in.pid)

    def coordinator(self, folder=None):
        # One slot: what is submitted waits for the running job.
        return Process([self.arguments.coordinator, "--data", folder or self.data, "--listen", "127.0.0.1:0", "--slots", "1", "--root", "/"], self.log)

    def hello(self, size):
        return Process([self.arguments.program, "hello", "--bytes", str(size)], self.log)

    def get(self, server, target):
        with urllib.request.urlopen(f"http://{server}{target}", timeout=60) as answer:
            return json.load(answer)

    def telemetry(self, folder=None):
        return json.loads((Path(folder or self.data) / "coordinator.address").read_text())["telemetry"]

    def ranks(self, ranks, rate, seconds, folder=None, fact_every=10):
        """The arguments of `ranks`; shards and iterations go on where the last call's ended."""
        words = ["ranks", "--telemetry", self.telemetry(folder), "--ranks", ranks, "--rate", rate, "--seconds", seconds,
                 "--fact-every", fact_every, "--first-shard", self.shard, "--first-iteration", self.iteration]
        self.shard += int(ranks * rate * seconds / fact_every) + ranks
        self.iteration += int(rate * seconds) + 1
        return words

    # ---- the cases ----

    def start(self):
        seconds = []
        for _ in range(5):
            with self.coordinator() as coordinator:
                seconds.append(coordinator.start_s)
                self.get(coordinator.server, "/readyz")
                memory = coordinator.memory_mb()
        worst = max(seconds)
        line("start", worst / 3, 1.0, True, "opening the database, and a look at every job that has not ended",
             worst_s=round(worst, 2), median_s=round(statistics.median(seconds), 2), memory_mb=round(memory))

    def requests(self):
        # In a folder of 100,000, not all from the newest: the pages of the whole list, and jobs all over it.
        last = self.arguments.jobs
        targets = []
        for i in range(50):
            place = last * i // 50
            targets.append(f"--target=/api/v1/jobs?limit=100&page_token={place}")
            targets.append(f"--target=/api/v1/jobs/train_teacher-{place // 5 * 5 + 2}")
        with self.coordinator() as coordinator:
            size = len(json.dumps(self.get(coordinator.server, "/api/v1/jobs?limit=100")))
            ours = self.load("requests", "--server", coordinator.server, "--rate", 500, "--seconds", 20, *targets)
            kinds = {kind: self.load("requests", "--server", coordinator.server, "--rate", 500, "--seconds", 10, *targets[first::2])
                     for first, kind in enumerate(["list", "show"])}
        with self.hello(size) as hello:
            plain = self.load("requests", "--server", hello.server, "--rate", 500, "--seconds", 20, "--target", "/")
        worst = max(each["p99_ms"] for each in [ours, *kinds.values()])
        errors = sum(each["errors"] for each in [ours, *kinds.values()])
        line("requests", worst / 20, 1.0, errors == 0, "writing 100 jobs as JSON", both=ours, **kinds, plain_hello=plain)

    def submit(self):
        body = Path(self.arguments.scratch) / "pipeline.json"
        spec = {"name": "teacher", "kind": "train_teacher", "dataset": {"path": "/nowhere/digits.h5"}}
        body.write_text(json.dumps({"base": "/", "spec": {"pipeline": "bench", "jobs": [spec]}}))
        with self.coordinator() as coordinator:
            result = self.load("submits", "--server", coordinator.server, "--target", "/api/v1/jobs", "--body", body,
                               "--count", 300, "--folder", self.arguments.scratch)
        ratio = result["submit"]["p99_ms"] / result["write_and_fsync"]["p99_ms"]
        line("submit", ratio, 3.0, True, "the database's log is synced before the answer", **result)

    def events(self):
        with self.coordinator() as coordinator:
            last = self.get(coordinator.server, f"/api/v1/jobs/{RUNNING}")["last_event_id"]
            memory = [coordinator.memory_mb()]
            readers = self.start_load("events", "--server", coordinator.server, "--readers", 1000, "--seconds", 135,
                                      "--after", last, "--target", f"/api/v1/jobs/{RUNNING}/events?types=metric,state,progress")
            time.sleep(5)
            refused = 0
            for _ in range(8):
                refused += self.load(*self.ranks(256, 10, 15, fact_every=1000))["refused"]
                memory.append(coordinator.memory_mb())
            result = json.loads(readers.communicate()[0].strip().splitlines()[-1])
            stored = stored_events(coordinator.server, last)
        good = (result["missed"] == result["out_of_order"] == result["lost_connections"] == refused == 0 and
                result["events_least"] == result["events_most"] == stored > 0)
        first, last = max(memory[1:5]), max(memory[5:])
        line("events", last / first, 1.1, good, "what the allocator keeps of each reader's last texts", **result, stored=stored,
             memory_mb={"before": round(memory[0], 1), "every_15_s": [round(each, 1) for each in memory[1:]]})

    def ranks_case(self, name, ranks, rate, seconds):
        folder = str(Path(self.arguments.scratch) / name)
        self.shard = self.iteration = 0
        self.fill(folder, ranks, 10, 0)
        with self.coordinator(folder) as coordinator:
            result = self.load(*self.ranks(ranks, rate, seconds, folder))
            done, target = 0, f"/api/v1/jobs/{RUNNING}/shards"
            while target:
                page = self.get(coordinator.server, target)
                done += sum(1 for shard in page["items"] if shard["state"] == "done")
                target = page["next"]
            memory = coordinator.memory_mb()
        good = result["acknowledged"] == result["facts"] == done and result["refused"] == 0 and result["late"] == 0
        # A training step must not wait: handing a message over takes no longer than a heartbeat's worth of time.
        line(name, result["send"]["max_ms"] / 100, 1.0, good, "one thread, which writes all that came since the last sync of the disk with the next one", **result,
             stored=done, memory_mb=round(memory, 1))

    def soak(self, seconds):
        """Requests, readers and ranks all at once; memory and descriptors of the last half must be those of the first."""
        with self.coordinator() as coordinator:
            server = coordinator.server
            loads = [self.start_load(*self.ranks(256, 1, seconds, fact_every=100)),
                     self.start_load("events", "--server", server, "--readers", 100, "--seconds", seconds, "--target",
                                     f"/api/v1/jobs/{RUNNING}/events"),
                     self.start_load("requests", "--server", server, "--rate", 20, "--seconds", seconds, "--connections", 10, "--target",
                                     "/api/v1/jobs?limit=100", "--target", f"/api/v1/jobs/{RUNNING}", "--target",
                                     f"/api/v1/jobs/{RUNNING}/metrics?max_points=500", "--target", f"/api/v1/jobs/{RUNNING}/workers")]
            time.sleep(min(30, seconds / 4))
            samples = []
            while any(load.poll() is None for load in loads) and len(samples) < 10000:
                samples.append((coordinator.memory_mb(), coordinator.descriptors()))
                time.sleep(min(10, seconds / 40))
            results = [json.loads(load.communicate()[0].strip().splitlines()[-1]) for load in loads]
        half = len(samples) // 2
        first, last = [max(s[0] for s in part) for part in (samples[:half], samples[half:-2])]
        descriptors = [max(s[1] for s in part) for part in (samples[:half], samples[half:-2])]
        ranks, events, requests = results
        whole = (ranks["acknowledged"] == ranks["facts"] and ranks["refused"] == ranks["late"] == requests["errors"] == 0 and
                 events["missed"] == events["out_of_order"] == events["lost_connections"] == 0)
        line("soak", last / first, 1.1, descriptors[1] <= descriptors[0] and whole, "what the allocator keeps of the largest answers", seconds=seconds,
             memory_mb={"first_half": round(first, 1), "second_half": round(last, 1)}, descriptors=descriptors,
             ranks=ranks, events=events, requests=requests)

    def run(self):
        only = self.arguments.only.split(",") if self.arguments.only else CASES
        if set(only) & {"start", "requests", "submit", "events"} or self.arguments.soak:
            self.fill(self.data, 256, self.arguments.jobs, self.arguments.points)
        for case in only:
            print(f"bench: service/{case}", file=sys.stderr)
            if case == "ranks256":
                self.ranks_case(case, 256, 10, 30)
            elif case == "ranks4096":
                self.ranks_case(case, 4096, 0.5, 30)
            else:
                getattr(self, case)()
        if self.arguments.soak:
            self.soak(self.arguments.soak)


def stored_events(server, after):
    """How many metric events of the running job the server has stored since: read to the end by one more reader."""
    url = f"http://{server}/api/v1/jobs/{RUNNING}/events?types=metric"
    request = urllib.request.Request(url, headers={"Last-Event-ID": after} if after != "0" else {})
    count = 0
    with urllib.request.urlopen(request, timeout=3) as stream:
        try:
            for text in stream:
                count += text.startswith(b"event: metric")
        except TimeoutError:
            pass
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", required=True)
    parser.add_argument("--coordinator", required=True)
    parser.add_argument("--scratch", required=True, help="an empty folder on the disk that is to be measured")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--points", type=int, default=10_000_000)
    parser.add_argument("--only", default="", help="cases, with commas between")
    parser.add_argument("--soak", type=float, default=0, help="seconds of everything at once, at the end")
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    bench = Bench(arguments)
    try:
        bench.run()
    finally:
        bench.stand_in.kill()


if __name__ == "__main__":
    main()
