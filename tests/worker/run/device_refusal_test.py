"""A job for a device where there is none: one clear line, exit status 3, and nothing in the run folder."""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SPEC = {"name": "d", "kind": "distill", "device": "cuda", "teacher": "teacher", "pairs": "pairs"}


def main():
    with tempfile.TemporaryDirectory() as folder:
        spec, run = Path(folder) / "job.json", Path(folder) / "run"
        spec.write_text(json.dumps(SPEC))
        # On a machine with a GPU the job must not see it.
        result = subprocess.run([sys.argv[1], spec, "--output", run], capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
        assert result.returncode == 3, (result.returncode, result.stderr)
        # Without the CUDA part, without its libraries, without a device.
        lines = [line for line in result.stderr.splitlines() if "device: " in line and "found" in line]
        assert len(lines) == 1, result.stderr
        assert not run.exists(), list(run.iterdir())


main()
