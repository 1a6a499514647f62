"""Figures of a real coordinator and job, read by those who define the formats: promtool and TensorBoard's own reader."""
import json
import math
import os
import pathlib
import re
import subprocess
import tempfile
import time
import unittest
import urllib.request

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

PROGRAMS = pathlib.Path(os.environ["ONESTEP_PROGRAMS"])
ROOT = pathlib.Path(__file__).resolve().parents[2]
DIGITS = PROGRAMS.parent / "data/digits.h5"
PROMTOOL = os.environ["ONESTEP_PROMTOOL"]


class Monitoring(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.coordinator = subprocess.Popen(
            [PROGRAMS / "onestep-coordinator", "--data", cls.folder.name + "/data", "--listen", "127.0.0.1:0", "--root", "/", "--stop-workers"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        cls.url = re.search(r"http://[0-9.:]+", cls.coordinator.stdout.readline())[0]
        spec = {"name": "teacher", "kind": "train_teacher", "seed": 1, "dataset": {"path": str(DIGITS), "resolution": 14},
                "images": 3200, "batch": 64, "report_every": 5}
        request = urllib.request.Request(cls.url + "/api/v1/jobs", json.dumps({"spec": spec, "base": "/"}).encode(),
                                         {"Content-Type": "application/json"})
        urllib.request.urlopen(request).read()
        for _ in range(1200):
            job = json.loads(cls.get("/api/v1/jobs/teacher"))
            if job["state"] in ("succeeded", "failed"):
                break
            time.sleep(0.1)
        assert job["state"] == "succeeded", job

    @classmethod
    def tearDownClass(cls):
        cls.coordinator.terminate()
        cls.coordinator.wait()
        cls.coordinator.stdout.close()
        cls.folder.cleanup()

    @classmethod
    def get(cls, target):
        with urllib.request.urlopen(cls.url + target) as answer:
            return answer.read().decode()

    def test_promtool_finds_nothing_wrong(self):
        self.get("/api/v1/jobs")
        text = self.get("/metrics")
        checked = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True)
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, ""))
        self.assertIn('onestep_jobs{state="succeeded"} 1\n', text)
        self.assertRegex(text, r"onestep_images_total [1-9]")

    def test_no_label_names_a_job_a_host_or_a_path_of_a_client(self):
        for path in ("/api/v1/jobs/teacher-1", "/nowhere/%d" % time.time(), "/api/v1/jobs/nobody"):
            try:
                self.get(path)
            except urllib.error.HTTPError:
                pass
        labels = set(re.findall(r'(\w+)="([^"]*)"', self.get("/metrics")))
        self.assertEqual({name for name, _ in labels},
                         {"state", "code", "route", "method", "status", "result", "le", "version", "commit"})
        for name, value in labels:
            self.assertNotIn("teacher", value)
            self.assertNotIn("nowhere", value)

    def test_the_dashboard_asks_for_what_there_is(self):
        dashboard = json.loads((ROOT / "docs/grafana/onestep.json").read_text())
        there = set(re.findall(r"^# TYPE (\w+)", self.get("/metrics"), re.MULTILINE))
        asked = {name for panel in dashboard["panels"] for target in panel["targets"]
                 for name in re.findall(r"\b(?:onestep|process)_\w+", target["expr"])}
        self.assertGreater(len(asked), 10)
        self.assertEqual({re.sub("_bucket$", "", name) for name in asked} - there, set())

    def test_tensorboard_reads_every_point(self):
        subprocess.run([PROGRAMS / "onestep", "tensorboard", "teacher", "--out", self.folder.name + "/runs", "--url", self.url],
                       check=True, stdout=subprocess.DEVNULL)
        run = pathlib.Path(self.folder.name, "runs/teacher-1")
        (file,) = run.iterdir()
        self.assertGreater(len(list(RawEventFileLoader(str(file)).Load())), 20, "records with right checksums")
        reader = EventAccumulator(str(run), size_guidance={"scalars": 0})
        reader.Reload()
        series = json.loads(self.get("/api/v1/jobs/teacher/metrics?max_points=100000"))["series"]
        self.assertEqual(set(reader.Tags()["scalars"]), {one["key"].replace(".", "/") for one in series} | {"images"})
        for one in series:
            read = reader.Scalars(one["key"].replace(".", "/"))
            self.assertEqual([event.step for event in read], [point["iteration"] for point in one["points"]])
            for event, point in zip(read, one["points"]):
                self.assertTrue(math.isclose(event.value, point["value"], rel_tol=1e-6))
        self.assertEqual(reader.Scalars("images")[-1].value, 3200)


if __name__ == "__main__":
    unittest.main()
