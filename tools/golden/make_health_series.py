"""Writes tests/golden/health_series.json: the figures that healthy and collapsing digits distillations reported.

    python3 tools/golden/make_health_series.py --build build --work /tmp/health [--out tests/golden] [--only NAME ...]

Needs a build (its programs and data/digits.h5) and an hour or two of one core; goes on where it was stopped. One detector,
one teacher and one pair set by configs/digits/pipeline.json, then for each run below a worker with one thread: reported
figures come from its log (four digits), and each kept checkpoint is evaluated afterwards. What a run is expected to do
(`healthy`) is its design, never what any alarm says of it.
"""
import argparse
import copy
import hashlib
import json
import pathlib
import re
import shutil
import signal
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
EVERY = 30       # iterations between the kept checkpoints
STOP_AT = 450    # of 610: what a collapsing run does later needs no recording
BETA = {"learning_rate": 2e-3, "beta1": 0.9, "clip_norm": 1.0}
STEP = {"beta1": 0.0, "clip_norm": 1.0}

# Name, healthy, changes of the digits recipe; "freeze": the fake score's learning rate becomes 0 after its own phase.
RUNS = [
    ("healthy-1", True, {"seed": 101}),
    ("fast-1", False, {"seed": 111, "dmd": {"generator": BETA, "lambda_reg": 0.0, "pairs": 0}}),
    ("frozen-1", False, {"seed": 121, "freeze": True}),
    ("healthy-2", True, {"seed": 102}),
    ("never-1", False, {"seed": 131, "dmd": {"fake": {**STEP, "learning_rate": 0.0}}}),
    ("fast-pairs-1", False, {"seed": 141, "dmd": {"generator": BETA}}),
    ("healthy-3", True, {"seed": 103}),
    ("healthy-4", True, {"seed": 104}),
    ("healthy-5", True, {"seed": 105}),
    ("lagging-1", True, {"seed": 151, "dmd": {"fake": {**STEP, "learning_rate": 1e-5}}}),
    ("frozen-2", False, {"seed": 122, "freeze": True}),
    ("no-pairs", True, {"seed": 107, "dmd": {"lambda_reg": 0.0, "pairs": 0}}),
]


def merged(base, changes):
    result = dict(base)
    for key, value in changes.items():
        result[key] = merged(result.get(key, {}), value) if isinstance(value, dict) else value
    return result


class Recipe:
    def __init__(self, build, work):
        self.worker = pathlib.Path(build).resolve() / "bin" / "onestep-worker"
        self.work = pathlib.Path(work).resolve()
        pipeline = json.loads((ROOT / "configs/digits/pipeline.json").read_text())
        self.jobs = {job["name"]: job for job in pipeline["jobs"]}
        self.data = str(pathlib.Path(build).resolve() / "data" / "digits.h5")

    def start(self, name, spec):
        self.work.mkdir(parents=True, exist_ok=True)
        file = self.work / (name + ".json")
        spec = {**spec, "name": re.sub("[^A-Za-z0-9-]", "-", name), "ranks": 1}
        for key in list(spec):
            if isinstance(spec[key], str) and spec[key].startswith("@"):
                spec[key] = str(self.work / spec[key][1:])
        if "dataset" in spec:
            spec["dataset"] = {"path": self.data, "resolution": 14}
        file.write_text(json.dumps(spec, indent=1))
        log = open(self.work / (name + ".log"), "a")
        return subprocess.Popen([self.worker, file, "--output", self.work / name], stdout=log, stderr=log)

    def run(self, name, spec):
        if (self.work / name / "outcome.json").exists():
            return
        if self.start(name, spec).wait() != 0:
            raise SystemExit(f"{name}: failed; see {self.work / (name + '.log')}")

    def base(self):
        for name in ("detector", "teacher", "pairs"):
            self.run(name, self.jobs[name])

    def distill(self, name, healthy, changes):
        """Runs it, or what is left of it; returns the images of the whole run."""
        changes = dict(changes)
        freeze = changes.pop("freeze", False)
        spec = {key: value for key, value in copy.deepcopy(self.jobs["distill"]).items() if key != "evaluation"}
        spec = merged(spec, {**changes, "checkpoint": {"every_iterations": EVERY, "keep_last": 1000}})
        if freeze:
            # Up to the end of the fake score's phase as the recipe has it, then from that checkpoint with its rate at 0.
            first = spec["warmup"]["iterations"] + spec["fake_warmup"]["iterations"]
            spec["checkpoint"]["every_iterations"] = first
            self.stop_after(name, spec, first)
            spec["checkpoint"]["every_iterations"] = EVERY
            spec["dmd"]["fake"] = {**STEP, "learning_rate": 0.0}
            self.change_checkpoint(name, first)
        if healthy:
            self.run(name, spec)
        else:
            self.stop_after(name, spec, STOP_AT)
        dmd = spec["dmd"]
        return spec["warmup"]["iterations"] * spec["warmup"]["pairs"] + dmd["iterations"] * (dmd["batch"] + dmd["pairs"])

    def stop_after(self, name, spec, iteration):
        folders = self.work / name / "checkpoints"
        if any(folders.glob(f"*{iteration}-a*/manifest.json")):
            return
        process = self.start(name, spec)
        while not any(folders.glob(f"*{iteration}-a*/manifest.json")):
            if process.poll() is not None:
                raise SystemExit(f"{name}: ended before iteration {iteration}")
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        process.wait()
        for folder in folders.iterdir():
            if re.match(r"\d+-a\d+$", folder.name) and int(folder.name.split("-")[0]) > iteration:
                shutil.rmtree(folder)

    def change_checkpoint(self, name, iteration):
        """Its text stays as it is but for the fake score's learning rate, and is sealed anew (docs/formats.md)."""
        for manifest in (self.work / name / "checkpoints").glob(f"*{iteration}-a1/manifest.json"):
            text = re.sub(r'("fake": {[^}]*"learning_rate": )[0-9.e-]+', r"\g<1>0.0", manifest.read_text(), count=1)
            text = re.sub(r'\n  "manifest_sha256": "[0-9a-f]{64}",', "", text)
            seal = hashlib.sha256(text.encode()).hexdigest()
            keys = json.loads(text)
            after = sorted(key for key in keys if key > "manifest_sha256")[0]
            text = text.replace(f'\n  "{after}":', f'\n  "manifest_sha256": "{seal}",\n  "{after}":')
            manifest.write_text(text)

    def points(self, name):
        pattern = re.compile(r"([a-z ]+) (\d+)/(\d+), (\d+) images, \d+ images/s(.*)$")
        points = {}
        for line in (self.work / (name + ".log")).read_text().splitlines():
            found = pattern.search(line)
            if not found:
                continue
            values = {}
            for figure in found[5].split(", ")[1:]:
                key, value = figure.rsplit(" ", 1)
                if key != "data_wait_s":
                    values[key] = float(value)
            stage = found[1].split(": ")[-1].strip()
            points[int(found[2])] = {"stage": stage, "iteration": int(found[2]), "images": int(found[4]),
                                     "values": values}
        return [points[iteration] for iteration in sorted(points)]

    def evaluations(self, name):
        results = []
        for folder in sorted((self.work / name / "checkpoints").glob("*-a*")):
            if not (folder / "manifest.json").exists():
                continue
            iteration = int(folder.name.split("-")[0])
            job = f"{name}.evaluate-{iteration}"
            self.run(job, {"kind": "evaluate", "seed": 14, "detector": str(self.work / "detector"), "count": 2000,
                           "dataset": {}, "model": str(folder), "sampler": {"kind": "one_step"}})
            result = json.loads((self.work / job / "outcome.json").read_text())["result"]
            manifest = json.loads((folder / "manifest.json").read_text())
            results.append({"iteration": iteration, "images": manifest["images"],
                            **{key: float("%.4g" % result[key])
                               for key in ("frechet", "class_accuracy", "spread", "mean_shift")}})
        return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("--work", required=True)
    parser.add_argument("--out", default=str(ROOT / "tests/golden"))
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    recipe = Recipe(arguments.build, arguments.work)
    recipe.base()
    runs = []
    for name, healthy, changes in RUNS:
        if arguments.only and name not in arguments.only:
            continue
        images_total = recipe.distill(name, healthy, changes)
        points = recipe.points(name)
        runs.append({"name": name, "healthy": healthy, "changes": changes, "images_total": images_total,
                     "points": points, "evaluations": recipe.evaluations(name)})
        print(f"{name}: {len(points)} reports, {len(runs[-1]['evaluations'])} evaluations", flush=True)
        text = "{\"runs\": [\n" + ",\n".join(json.dumps(run, separators=(",", ":")) for run in runs) + "\n]}\n"
        pathlib.Path(arguments.out, "health_series.json").write_text(text)


if __name__ == "__main__":
    main()
