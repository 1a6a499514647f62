#!/usr/bin/env python3
"""Runs cases of onestep-bench-gpu beside their PyTorch twins, compares what both computed, and records what they took.

    python bench/gpu/drive.py --program build/gpu/onestep-bench-gpu --results bench/gpu/results CASE...

A case's record in <results>/<device>.json: {"case", "time", "commit", "ours", "twin", "ratio", "agree": {...}}; the file is replaced whole. Prints a line a
case. Exit status 1 when a side fails or the two disagree.
"""
import argparse
import datetime
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CASES = ("kernels", "optimizer", "sample-cifar10", "sample-imagenet64", "heun-cifar10", "heun-imagenet64", "inception", "cifar10-b56", "cifar10-b256", "cifar10-lpips", "imagenet64-b48")
FOLDER = Path(__file__).resolve().parent

# Both sides compute in bfloat16 (8 bits), in another order: some per cent of a value through a deep network. The bound on a norm or a loss, an average of
# many, is tighter than that on single values.
FIGURE_BOUND = 0.03
VALUES_BOUND = 0.08
EXACT_BOUND = 1e-4  # the optimizer, in fp32


def relative(a, b):
    difference = math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
    return difference / max(math.sqrt(sum(y * y for y in b)), 1e-12)


def compare(name, ours, twin):
    """{what: [found, bound]} of everything that both sides computed."""
    found = {}
    for key, value in ours.get("first", {}).items():
        if key in twin.get("first", {}):
            found[key] = [abs(value - twin["first"][key]) / max(abs(twin["first"][key]), 1e-12), FIGURE_BOUND]
    if "values" in ours and "values" in twin:
        found["values"] = [relative(ours["values"], twin["values"]), VALUES_BOUND]
    if name == "optimizer":
        for i, (a, b) in enumerate(zip(ours["cases"], twin["cases"], strict=True)):
            found[f"norm of {a['count']}"] = [abs(a["norm"] / b["norm"] - 1), EXACT_BOUND]
            found[f"values of {a['count']}"] = [relative(a["values"], b["values"]), EXACT_BOUND]
    if name == "kernels":
        for item in ours["cases"]:
            found[item["name"]] = [item["relative_error"], 0.02]
    if not found:
        raise ValueError(f"{name}: nothing to compare: ours has {sorted(ours)}, the twin {sorted(twin)}")
    return found


def ratio_of(name, ours, twin):
    """How much faster we are than the best variant of the twin; for several sizes or kernels, the geometric mean."""
    if name == "optimizer":
        ratios = [b["ms"] / a["ms"] for a, b in zip(ours["cases"], twin["cases"], strict=True)]
    elif name == "kernels":
        ratios = [item["stock_us"] / item["us"] for item in ours["cases"]]
    else:
        ratios = [ours["images_per_second"] / twin["images_per_second"]]
    return math.exp(sum(math.log(r) for r in ratios) / len(ratios))


def last_object(text):
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    raise ValueError("printed no JSON object")


def run(command, timeout, libraries=None):
    environment = os.environ | ({"LD_LIBRARY_PATH": libraries} if libraries else {})
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout, env=environment)
    if result.returncode != 0:
        raise RuntimeError(f"{Path(str(command[0])).name} ended with status {result.returncode}:\n{result.stdout[-1500:]}{result.stderr[-3000:]}")
    return last_object(result.stdout)


def device_file(results, device):
    return Path(results) / (re.sub(r"[^a-z0-9]+", "-", device.split(",")[0].lower()).strip("-") + ".json")


def append(results, record):
    """Adds a record to the device's file; another process sees the old file or the new one."""
    path = device_file(results, record["ours"]["device"])
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    content = json.dumps({"device": record["ours"]["device"], "runs": runs + [record]}, indent=1) + "\n"
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    with os.fdopen(handle, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
    return path


def measure(name, arguments, scratch):
    inputs = Path(scratch) / "inputs.safetensors"
    extra = (["--small"] if arguments.small else []) + ["--device", arguments.device]
    ours = run([arguments.program, name, "--inputs", inputs, "--seconds", arguments.seconds, *extra], timeout=480,
               libraries=arguments.libraries)
    if name == "kernels":
        twin = {"variants": [{"variant": "ATen's own operations, each graph replayed"}]}
    else:
        twin = run([sys.executable, FOLDER / "twin.py", name, "--inputs", inputs, "--seconds", arguments.seconds,
                    "--budget", arguments.twin_seconds, *extra], timeout=arguments.twin_seconds + 240)
    agree = compare(name, ours, twin)
    for side in (ours, twin):
        for item in [side, *side.get("cases", [])]:
            item.pop("values", None)
    return {"case": name, "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "commit": ours["commit"],
            "ours": ours, "twin": twin, "ratio": ratio_of(name, ours, twin), "agree": agree}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="+", choices=CASES)
    parser.add_argument("--program", required=True)
    parser.add_argument("--libraries", help="where the program, not this Python, finds its shared libraries")
    parser.add_argument("--results", required=True)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--twin-seconds", type=float, default=300, help="no further variant of the twin is begun after it")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    status = 0
    for name in arguments.cases:
        try:
            with tempfile.TemporaryDirectory(prefix="onestep-gpu.") as scratch:
                record = measure(name, arguments, scratch)
        except (RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
            print(f"bench/gpu: {name}: {error}", file=sys.stderr)
            status = 1
            continue
        apart = {what: pair for what, pair in record["agree"].items() if not pair[0] <= pair[1]}
        record["pass"] = not apart
        path = append(arguments.results, record)
        print(json.dumps({"case": name, "ratio": round(record["ratio"], 3), "ours": record["ours"].get("images_per_second"),
                          "twin": record["twin"].get("images_per_second"), "variant": record["twin"].get("variant"), "apart": apart, "file": str(path)}),
              flush=True)
        if apart:
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
