#!/usr/bin/env python3
"""What tools/convert_*.py make is what the worker takes: EDM teachers sampled, paired and exported, Inception's weights loaded.

ONESTEP_PROGRAM names the command line; the worker is beside it. Needs numpy, h5py.
"""
import json
import os
import pathlib
import struct
import subprocess
import unittest
import zlib

import numpy as np

import foreign_files as foreign
from converters_test import SOURCE, Case, onestep, read_safetensors

import convert_edm_pickle
import convert_torch


class ConvertedTeachers(Case):
    def setUp(self):
        super().setUp()
        self.network = foreign.SongUnet(self.rng)
        path = self.write("edm.pkl", foreign.edm_pickle(self.network))
        *_, self.digest = convert_edm_pickle.convert(path, self.at("teacher"))

    def worker(self, **spec):
        self.write(spec["name"] + ".json", json.dumps(spec).encode())
        program = pathlib.Path(os.environ["ONESTEP_PROGRAM"]).parent / "onestep-worker"
        run = subprocess.run([program, self.at(spec["name"] + ".json"), "--output", self.at(spec["name"])], capture_output=True,
                             text=True, check=False)
        self.assertEqual(run.returncode, 0, run.stderr)

    def sample(self, model, name):
        run = onestep("sample", "--model", self.at(model), "--count", "4", "--class", "3", "--out", self.at(name), "--json")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(pathlib.Path(self.at(name)).read_bytes()[:8], b"\x89PNG\r\n\x1a\n")
        return json.loads(run.stdout)["digest"]

    def test_each_preconditioner_is_sampled(self):
        digests = {self.sample("teacher", "edm.png")}
        for name in ("VPPrecond", "VEPrecond"):
            path = self.write("other.pkl", foreign.edm_pickle(self.network, preconditioner=name))
            convert_edm_pickle.convert(path, self.at(name))
            digests.add(self.sample(name, name + ".png"))
        self.assertEqual(len(digests), 3)  # the same weights, three denoisers

    def test_pairs_of_it(self):
        self.worker(name="pairs", kind="generate_pairs", seed=5, teacher=self.at("teacher"), count=6, rows_per_shard=3, batch=2,
                    sampler={"kind": "heun", "steps": 2})
        run = onestep("verify", self.at("pairs"))
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("6 pairs", run.stdout)
        manifest = json.loads(pathlib.Path(self.at("pairs/manifest.json")).read_text())
        self.assertEqual(manifest["teacher_sha256"], self.digest)

    def test_an_export_of_it_holds_its_weights(self):
        self.worker(name="export", kind="export", model=self.at("teacher"))
        self.assertEqual(onestep("verify", self.at("export")).returncode, 0)
        tensors = read_safetensors(self.at("export/model.safetensors"))
        self.assertEqual(sorted(tensors), sorted(self.network.arrays))
        for name, array in self.network.arrays.items():
            self.assertEqual(tensors[name].tobytes(), array.tobytes(), name)
        samples = read_safetensors(self.at("export/samples.safetensors"))
        self.assertEqual(samples["image"].shape, (16, 3, 16, 16))
        self.assertTrue(np.isfinite(samples["image"]).all())
        self.assertEqual(samples["labels"].tolist(), [i % 10 for i in range(16)])


def png_bytes(pixels):
    """A PNG of [height, width, 3] bytes."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class InceptionFiles(Case):
    """The published .pth has these names (tests/golden/inception_names.json), whether or not its norms count their batches."""

    NAMES = json.loads((SOURCE / "tests/golden/inception_names.json").read_text())

    def torch_file(self, name, with_counters, legacy, without=None):
        storages, value = [], {}
        for tensor, shape in self.NAMES["tensors"].items():
            if tensor == without or (tensor.endswith("num_batches_tracked") and not with_counters):
                continue
            if tensor.endswith("num_batches_tracked"):
                array, strides = np.array([7], "<i8"), ()
            else:  # one number for the whole tensor: strides of 0
                array, strides = np.array([0.02], "<f4"), (0,) * len(shape)
            storages.append(foreign.StorageReference(array, str(len(storages))))
            value[tensor] = foreign.Reduced(foreign.REBUILD_TENSOR, storages[-1], 0, tuple(shape), strides, False, {})
        if legacy:
            return self.write(name, foreign.legacy_bytes(value, storages))
        foreign.zip_file(self.at(name), value, storages)
        return self.at(name)

    def test_both_forms_become_a_detector(self):
        os.mkdir(self.at("images"))
        for i in range(10):  # the Inception Score has ten splits
            pixels = self.rng.integers(0, 256, (9, 8, 3)).astype("u1")
            self.write(f"images/{i}.png", png_bytes(pixels))
        for with_counters, legacy in ((False, True), (True, False)):
            with self.subTest(with_counters=with_counters, legacy=legacy):
                out = self.at("inception.safetensors")
                *_, digest = convert_torch.convert(self.torch_file("inception.pth", with_counters, legacy), out)
                found = json.loads(onestep("inspect", out, "--json").stdout)
                self.assertEqual(found["problems"], [])
                self.assertEqual(found["network"], "Inception v3 (2015-12-05)")
                self.assertEqual(found["parameters"], 23_850_960)
                run = onestep("evaluate", "--images", self.at("images"), "--detector", out, "--metrics", "is", "--json")
                self.assertEqual(run.returncode, 0, run.stderr)
                result = json.loads(run.stdout.splitlines()[-1])
                self.assertEqual(result["detector_sha256"], digest)
                self.assertAlmostEqual(result["inception_score"], 1, places=6)  # all logits alike
                os.unlink(out)

    def test_a_missing_tensor_is_named(self):
        out = self.at("inception.safetensors")
        convert_torch.convert(self.torch_file("inception.pth", False, True, without="Mixed_6d.branch7x7_2.conv.weight"), out)
        run = onestep("evaluate", "--images", self.folder.name, "--detector", out, "--metrics", "is")
        self.assertEqual(run.returncode, 4)
        self.assertIn("Mixed_6d.branch7x7_2.conv.weight: missing", run.stderr)


if __name__ == "__main__":
    unittest.main()
