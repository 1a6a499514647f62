"""bench/gpu without a GPU: what run.sh refuses, what drive.py compares and records, what report.py writes, and the program's cases on the processor."""
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GPU = ROOT / "bench" / "gpu"
sys.path.insert(0, str(GPU))
import drive  # noqa: E402
import report  # noqa: E402

# A sample, not a measurement.
SAMPLE = json.loads((Path(__file__).parent / "sample-device.json").read_text())


def shell(*arguments, **environment):
    return subprocess.run([str(a) for a in arguments], capture_output=True, text=True, env=os.environ | environment)


class RunScript(unittest.TestCase):
    def test_lists_the_cases_of_the_driver_and_of_the_program(self):
        names = shell(GPU / "run.sh", "--list").stdout.split()
        self.assertEqual(tuple(names), drive.CASES)
        self.assertEqual(shell(os.environ["ONESTEP_BENCH_PROGRAM"], "--list").stdout.split(), names)

    def test_refuses_what_it_does_not_know(self):
        result = shell(GPU / "run.sh", "cifar11")
        self.assertEqual(result.returncode, 2)
        self.assertIn("found cifar11", result.stderr)
        self.assertEqual(shell(GPU / "run.sh").returncode, 2)

    def test_refuses_without_a_gpu(self):
        with tempfile.TemporaryDirectory() as empty:
            for name in ("tests", "cifar10-b56"):
                result = shell(GPU / "run.sh", name, ONESTEP_GPU_NODES=empty)
                self.assertEqual(result.returncode, 2)
                self.assertEqual(result.stderr, f"bench/gpu: expected an NVIDIA GPU ({empty}/nvidia0), found none on this machine\n")
            (Path(empty) / "nvidia0").touch()
            result = shell(GPU / "run.sh", "tests", ONESTEP_GPU_NODES=empty, ONESTEP_TORCH=empty)
            self.assertEqual(result.returncode, 2)
            self.assertIn("found no libtorch_cuda.so", result.stderr)


class Program(unittest.TestCase):
    def test_the_program_for_the_processor_refuses_a_gpu(self):
        result = shell(os.environ["ONESTEP_BENCH_PROGRAM"], "kernels")
        self.assertEqual(result.returncode, 3)
        self.assertIn("found one for the CPU alone", result.stderr)

    def test_cases_run_on_the_processor(self):
        for name in ("kernels", "optimizer", "sample-cifar10", "imagenet64-b48"):
            with self.subTest(name):
                result = shell(os.environ["ONESTEP_BENCH_PROGRAM"], name, "--device", "cpu", "--small", "--seconds", "0")
                self.assertEqual(result.returncode, 0, result.stderr)
                found = json.loads(result.stdout)
                self.assertEqual((found["case"], found["device"], found["small"]), (name, "cpu", True))
                if name == "kernels":
                    for item in found["cases"]:
                        self.assertLess(item["relative_error"], 0.02, item["name"])
                if name == "imagenet64-b48":
                    self.assertTrue(found["finite"])


class Driver(unittest.TestCase):
    def test_sides_that_agree_and_sides_that_do_not(self):
        ours = {"first": {"loss_dm": 1.0, "loss_reg": 2.0}}
        apart = drive.compare("cifar10-b56", ours, {"first": {"loss_dm": 1.01, "loss_reg": 2.2}})
        self.assertLess(apart["loss_dm"][0], apart["loss_dm"][1])
        self.assertGreater(apart["loss_reg"][0], apart["loss_reg"][1])
        nan = drive.compare("cifar10-b56", {"first": {"loss_dm": float("nan")}}, ours)
        self.assertFalse(nan["loss_dm"][0] <= nan["loss_dm"][1])
        with self.assertRaises(ValueError):
            drive.compare("cifar10-b56", ours, {"images_per_second": 1})

    def test_a_record_is_added_to_the_devices_file(self):
        with tempfile.TemporaryDirectory() as folder:
            for record in SAMPLE["runs"]:
                path = drive.append(folder, record)
            self.assertEqual(path.name, "sample-device-of-nobody.json")
            self.assertEqual(len(json.loads(path.read_text())["runs"]), len(SAMPLE["runs"]))
            self.assertEqual([p.name for p in Path(folder).iterdir()], [path.name])

    def test_ratios(self):
        self.assertEqual(drive.ratio_of("cifar10-b56", {"images_per_second": 30}, {"images_per_second": 20}), 1.5)
        two = {"cases": [{"ms": 1}, {"ms": 4}]}
        self.assertAlmostEqual(drive.ratio_of("optimizer", two, {"cases": [{"ms": 2}, {"ms": 2}]}), 1)

    def test_a_side_that_fails_fails_the_case(self):
        with tempfile.TemporaryDirectory() as folder:
            result = shell(sys.executable, GPU / "drive.py", "--program", "/bin/false", "--results", folder, "kernels")
            self.assertEqual(result.returncode, 1)
            self.assertIn("kernels: false ended with status 1", result.stderr)
            self.assertEqual(list(Path(folder).iterdir()), [])


class Report(unittest.TestCase):
    def write(self, runs, document, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder) / "results"
            results.mkdir()
            if runs is not None:
                (results / "sample.json").write_text(json.dumps({"device": SAMPLE["device"], "runs": runs}))
            path = Path(folder) / "performance.md"
            path.write_text(document)
            result = shell(sys.executable, GPU / "report.py", "--results", results, "--document", path, *arguments)
            return result, path.read_text()

    DOCUMENT = f"before\n{report.BEGIN} -->\nold\n{report.END}\nafter\n"

    def test_the_latest_record_of_a_case_is_shown(self):
        result, text = self.write(SAMPLE["runs"], self.DOCUMENT)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(text.startswith("before\n") and text.endswith("after\n"))
        self.assertNotIn("old", text)
        self.assertIn("On one sample device of nobody, 0.0 GiB:", text)
        self.assertIn("| `cifar10-b56` | 200 images/s | 100 (bf16, CUDA graph) | 2.00 | within 1.0e-02 | 2000-01-02, 000000000000 |", text)
        self.assertEqual(text.count("`cifar10-b56`"), 1)
        self.assertIn("| norm_silu forward | 10 µs | 20 µs | 2.00 | 1.50 TB/s |", text)
        self.assertIn("| `optimizer` | 1.00 / 4.00 ms | 2.00 / 8.00 ms (fused AdamW) | 2.00 |", text)
        self.assertIn("**they disagree**", text)
        self.assertEqual(self.write(SAMPLE["runs"], text, "--check")[0].returncode, 0)
        self.assertEqual(self.write(SAMPLE["runs"], text.replace("200 images/s", "300 images/s"), "--check")[0].returncode, 1)

    def test_nothing_measured_is_said(self):
        self.assertIn(report.NOTHING, self.write(None, self.DOCUMENT)[1])
        small = [SAMPLE["runs"][0] | {"ours": SAMPLE["runs"][0]["ours"] | {"small": True}}]
        self.assertIn(report.NOTHING, self.write(small, self.DOCUMENT)[1])

    def test_a_document_without_markers_and_a_record_without_its_parts_are_refused(self):
        result, text = self.write(SAMPLE["runs"], "no markers\n")
        self.assertEqual((result.returncode, text), (1, "no markers\n"))
        result, text = self.write([{"case": "kernels"}], self.DOCUMENT)
        self.assertEqual((result.returncode, text), (1, self.DOCUMENT))
        self.assertIn("lacks time", result.stderr)

    def test_the_committed_document_is_what_the_results_say(self):
        self.assertEqual(shell(sys.executable, GPU / "report.py", "--check").returncode, 0)


if __name__ == "__main__":
    unittest.main()
