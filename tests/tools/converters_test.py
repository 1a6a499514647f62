#!/usr/bin/env python3
"""Tests of tools/convert_*.py, tools/import_pairs.py and the reader of pickles below them. Needs numpy, h5py, libxxhash0.

ONESTEP_PROGRAM names the command line, which must find what is made here whole.
"""
import io
import json
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(SOURCE / "tools"), str(pathlib.Path(__file__).resolve().parent)]

import h5py  # noqa: E402
import numpy as np  # noqa: E402

import convert_edm_pickle  # noqa: E402
import convert_torch  # noqa: E402
import foreign_files as foreign  # noqa: E402
import import_pairs  # noqa: E402
from safe_pickle import Refused, read_pickle  # noqa: E402
from torch_files import DTYPES, TENSOR_NAMES, Tensor, load_torch_file, write_safetensors  # noqa: E402


def read_safetensors(path):
    content = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + size])
    header.pop("__metadata__")
    types = {"F32": "<f4", "F16": "<f2", "I64": "<i8", "F64": "<f8", "BF16": "<u2"}
    return {name: np.frombuffer(content[8 + size + e["data_offsets"][0]:8 + size + e["data_offsets"][1]], types[e["dtype"]])
            .reshape(e["shape"]) for name, e in header.items()}


def onestep(*arguments):
    return subprocess.run([os.environ["ONESTEP_PROGRAM"], *arguments], capture_output=True, text=True, check=False)


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.rng = np.random.default_rng(5)

    def at(self, name):
        return os.path.join(self.folder.name, name)

    def write(self, name, content):
        pathlib.Path(self.at(name)).write_bytes(content)
        return self.at(name)

    def assert_refused(self, function, *parts):
        before = sorted(os.listdir(self.folder.name))
        with self.assertRaises(Refused) as caught:
            function()
        for part in parts:
            self.assertIn(part, str(caught.exception))
        self.assertEqual(sorted(os.listdir(self.folder.name)), before)


class Marker:
    """Pickles as a call that leaves a file behind when it is made."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class HostilePickles(Case):
    def hostile(self):
        """name -> bytes of pickles that would run a command."""
        command = f"touch {self.at('ran')}"
        made = {"os.system": pickle.dumps(Marker(os.system, command), 4),
                "eval": pickle.dumps(Marker(eval, f"__import__('os').system({command!r})"), 4),
                "exec": pickle.dumps(Marker(exec, f"import os; os.system({command!r})"), 2),
                "protocol 0": b"cos\nsystem\n(S'" + command.encode() + b"'\ntR.",
                "INST": b"(S'" + command.encode() + b"'\nios\nsystem\n.",
                "OBJ": b"(cos\nsystem\nS'" + command.encode() + b"'\no.",
                "subprocess": pickle.dumps(Marker(subprocess.check_call, ["/bin/sh", "-c", command]), 4),
                "dotted": b"\x80\x04\x8c\x05torch\x8c\x0fserialization.os\x93\x8c\x01x\x85R.",
                "named only": b"\x80\x02cposix\nsystem\nq\x00.",
                "extension": b"\x80\x02\x82\x01.",
                "getattr": b"\x80\x04cbuiltins\ngetattr\n(cbuiltins\n__import__\nX\x08\x00\x00\x00__call__tR."}
        return made

    def test_refused_everywhere(self):
        for name, content in self.hostile().items():
            with self.subTest(name):
                self.assert_refused(lambda: read_pickle(io.BytesIO(content), "a.pkl", TENSOR_NAMES), "a.pkl: byte", "expected", "found")
                path = self.write("a.pkl", content)
                self.assert_refused(lambda: convert_edm_pickle.convert(path, self.at("out")), "a.pkl")
                self.assert_refused(lambda: convert_torch.convert(path, self.at("out")), "a.pkl")
                self.assertFalse(os.path.exists(self.at("ran")))

    def test_refused_inside_a_nested_storage(self):
        for name, content in self.hostile().items():
            with self.subTest(name):
                system = pickle.dumps({"little_endian": True}, 2)
                blob = foreign.dumps(0x1950A86A20F9469CFC6C) + foreign.dumps(1001) + system + content + pickle.dumps([], 2)
                network = foreign.SongUnet(self.rng)
                weight = network.module.state["_modules"]["map_layer0"].state["_parameters"]
                weight["weight"] = foreign.Reduced(foreign.REBUILD_PARAMETER, foreign.tensor_of(
                    foreign.Reduced(foreign.LOAD_FROM_BYTES, blob), np.zeros((2, 2), "<f4")), True, {})
                path = self.write("a.pkl", foreign.edm_pickle(network))
                self.assert_refused(lambda: convert_edm_pickle.convert(path, self.at("out")), "nested storage")
                self.assertFalse(os.path.exists(self.at("ran")))

    def test_refused_inside_torch_files(self):
        for name, content in self.hostile().items():
            with self.subTest(name):
                import zipfile
                with zipfile.ZipFile(self.at("a.pth"), "w") as archive:
                    archive.writestr("archive/data.pkl", content)
                self.assert_refused(lambda: load_torch_file(self.at("a.pth")), "archive/data.pkl")
                self.assertFalse(os.path.exists(self.at("ran")))

    def test_the_command_line_says_it_in_one_line(self):
        path = self.write("a.pkl", self.hostile()["os.system"])
        for tool in ("convert_edm_pickle.py", "convert_torch.py"):
            run = subprocess.run([sys.executable, str(SOURCE / "tools" / tool), path, self.at("out")], capture_output=True, text=True)
            self.assertEqual(run.returncode, 2)
            self.assertEqual(run.stderr.count("\n"), 1)
            self.assertIn("posix.system" if "edm" in tool else "a.pkl", run.stderr)

    def test_mutated_pickles_end_in_a_refusal_or_a_value(self):
        content = foreign.edm_pickle(foreign.SongUnet(self.rng, channels=4, augment_dim=2))
        rng = np.random.default_rng(7)
        for _ in range(150):
            changed = bytearray(content)
            for _ in range(int(rng.integers(1, 5))):
                changed[int(rng.integers(len(changed)))] = int(rng.integers(256))
            path = self.write("m.pkl", bytes(changed[:int(rng.integers(1, len(changed) + 1))] if rng.random() < 0.3 else changed))
            try:
                convert_edm_pickle.convert(path, self.at("mutated"))
            except Refused:
                pass
            if os.path.exists(self.at("mutated")):
                for name in os.listdir(self.at("mutated")):
                    os.unlink(os.path.join(self.at("mutated"), name))


class EdmPickles(Case):
    def test_every_tensor_and_the_architecture(self):
        network = foreign.SongUnet(self.rng)
        for protocol in (2, 3, 4, 5):
            with self.subTest(protocol):
                path = self.write("edm.pkl", foreign.edm_pickle(network, protocol))
                out = self.at(f"teacher{protocol}")
                convert_edm_pickle.convert(path, out)
                tensors = read_safetensors(os.path.join(out, "model.safetensors"))
                self.assertEqual(sorted(tensors), sorted(network.arrays))
                for name, array in network.arrays.items():
                    self.assertEqual(tensors[name].tobytes(), array.tobytes(), name)
                config = json.loads(pathlib.Path(out, "config.json").read_text())
                self.assertEqual(config["network"]["class"], "song_unet")
                self.assertEqual(config["network"]["preconditioner"], "edm")
                self.assertEqual(config["network"]["channel_mult"], [1, 2])
                self.assertEqual(config["network"]["augment_dim"], 9)
                self.assertEqual(config["network"]["sigma_data"], 0.5)
                published = json.loads((SOURCE / "configs/networks/cifar10-cond-vp.json").read_text())
                self.assertEqual(sorted(config["network"]), sorted(published))
                found = json.loads(onestep("inspect", out, "--json").stdout)
                self.assertEqual(found["problems"], [])
                self.assertEqual(found["parts"][0]["problems"], [])
                self.assertEqual(found["parts"][0]["network"],
                                 "EDM song_unet (DDPM++), 16x16, 3 channels, 10 classes, augment_dim 9")

    def convert(self, network, **outer):
        return convert_edm_pickle.convert(self.write("edm.pkl", foreign.edm_pickle(network, **outer)), self.at("out"))

    def test_other_layouts_are_refused(self):
        def changed(change):
            network = foreign.SongUnet(self.rng)
            change(network.module.state)
            return lambda: self.convert(network)

        self.write("edm.pkl", b"")
        self.assert_refused(changed(lambda s: s["_init_kwargs"].update(decoder_type="skip")), "decoder", "skip")
        self.assert_refused(changed(lambda s: s["_init_kwargs"].update(surprise=1)), "surprise")
        self.assert_refused(changed(lambda s: s["_init_kwargs"].pop("img_resolution")), "img_resolution", "found none")
        self.assert_refused(changed(lambda s: s.pop("_modules")), "ema.model", "_modules")
        self.assert_refused(changed(lambda s: s["_modules"].update(map_layer0=3)), "map_layer0", "expected a module")
        self.assert_refused(lambda: convert_edm_pickle.convert(self.write("edm.pkl", pickle.dumps({"ema": 1})), self.at("out")), "ema")
        self.assert_refused(lambda: convert_edm_pickle.convert(self.write("edm.pkl", pickle.dumps([1])), self.at("out")), "dictionary with `ema`")
        whole = foreign.edm_pickle(foreign.SongUnet(self.rng))
        self.assert_refused(lambda: convert_edm_pickle.convert(self.write("edm.pkl", whole[:-20]), self.at("out")), "edm.pkl")
        self.assert_refused(lambda: convert_edm_pickle.convert(self.write("edm.pkl", whole + b"x"), self.at("out")), "found more")

    def test_nothing_is_overwritten(self):
        network = foreign.SongUnet(self.rng)
        self.convert(network)
        self.assert_refused(lambda: self.convert(network), "new or empty folder")


class TorchFiles(Case):
    def arrays(self):
        return {"a.weight": self.rng.standard_normal((3, 4)).astype("<f4"), "b": np.arange(5, dtype="<i8"),
                "half": self.rng.standard_normal((2, 3)).astype("<f2"), "scalar": np.array(2.5, "<f8"),
                "brain": np.array([0x3FC0, 0xC020], "<u2"), "none": np.zeros((0, 7), "<f4")}

    def check(self, path, key=None, skip=False):
        out = self.at("out.safetensors")
        convert_torch.convert(path, out, key, skip)
        tensors = read_safetensors(out)
        expected = self.arrays_written
        self.assertEqual(sorted(tensors), sorted(expected))
        for name, array in expected.items():
            self.assertEqual((tensors[name].shape, tensors[name].tobytes()), (array.shape, array.tobytes()), name)
        os.unlink(out)

    def test_both_forms(self):
        self.arrays_written, storages = self.arrays(), []
        value = foreign.state_dict(self.arrays_written, storages)
        foreign.zip_file(self.at("a.pth"), value, storages)
        self.check(self.at("a.pth"))
        self.check(self.write("b.bin", foreign.legacy_bytes(value, storages)))
        nested = {"state_dict": value, "global_step": 7}
        self.check(self.write("c.ckpt", foreign.legacy_bytes(nested, storages)), key="state_dict")
        self.assert_refused(lambda: convert_torch.convert(self.at("c.ckpt"), self.at("out")), "global_step", "--skip-others")
        self.assert_refused(lambda: convert_torch.convert(self.at("c.ckpt"), self.at("out"), "ema"), "ema", "expected a dictionary")

    def test_views_share_a_storage(self):
        base = np.arange(12, dtype="<f4")
        storage = foreign.StorageReference(base, "0")
        value = {"all": foreign.tensor_of(storage, base.reshape(3, 4)),
                 "transposed": foreign.tensor_of(storage, np.empty((4, 3), "<f4"), 0, (1, 4)),
                 "tail": foreign.tensor_of(storage, np.empty((2,), "<f4"), 10, (1,))}
        foreign.zip_file(self.at("a.pth"), value, [storage])
        self.arrays_written = {"all": base.reshape(3, 4), "transposed": np.ascontiguousarray(base.reshape(3, 4).T), "tail": base[10:]}
        self.check(self.at("a.pth"))

    def test_wider_types(self):
        storages = []
        value = foreign.state_dict({"half": np.array([1.5, -2], "<f2"), "brain": np.array([0x3FC0, 0xC020], "<u2")}, storages)
        foreign.zip_file(self.at("a.pth"), value, storages)
        convert_torch.convert(self.at("a.pth"), self.at("out"), widen=True)
        tensors = read_safetensors(self.at("out"))
        np.testing.assert_array_equal(tensors["half"], np.array([1.5, -2], "<f4"))
        np.testing.assert_array_equal(tensors["brain"], np.array([1.5, -2.5], "<f4"))

    def test_tensors_stay_within_their_storage(self):
        storage = foreign.StorageReference(np.arange(6, dtype="<f4"), "0")
        for size, offset, stride in [((7,), 0, (1,)), ((6,), 1, (1,)), ((2, 3), 0, (4, 1)), ((2,), 0, (-1,)), ((2,), -1, (1,)),
                                     ((1 << 60,), 0, (1,)), ((2, 2), 0, (1,))]:
            value = {"a": foreign.Reduced(foreign.REBUILD_TENSOR, storage, offset, size, stride, False, {})}
            foreign.zip_file(self.at("a.pth"), value, [storage])
            self.assert_refused(lambda: load_torch_file(self.at("a.pth")), "a.pth", "expected", "found")

    def test_damaged_files_are_refused(self):
        storages = []
        value = foreign.state_dict(self.arrays(), storages)
        foreign.zip_file(self.at("a.pth"), value, storages)
        whole = foreign.legacy_bytes(value, storages)
        for length in range(0, len(whole), 37):
            path = self.write("cut.bin", whole[:length])
            with self.assertRaises(Refused):
                load_torch_file(path)
        content = pathlib.Path(self.at("a.pth")).read_bytes()
        self.write("cut.pth", content[:len(content) // 2])
        self.assert_refused(lambda: load_torch_file(self.at("cut.pth")), "zip")
        storages[0].array = storages[0].array[:3]
        foreign.zip_file(self.at("short.pth"), foreign.state_dict({"a": np.zeros(5, "<f4")}, []), [])
        self.assert_refused(lambda: load_torch_file(self.at("short.pth")), "data/0", "expected a storage")

    def test_the_writer_is_that_of_onestep(self):
        """The same bytes as src/common/safetensors_file.cpp writes: tests/golden/safetensors_onestep.safetensors."""
        golden = (SOURCE / "tests/golden/safetensors_onestep.safetensors").read_bytes()
        size = struct.unpack("<Q", golden[:8])[0]
        header = json.loads(golden[8:8 + size])
        metadata = header.pop("__metadata__")
        tensors = {}
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            array = np.frombuffer(golden[8 + size + begin:8 + size + end], DTYPES[entry["dtype"]][0]).reshape(entry["shape"])
            tensors[name] = Tensor(entry["dtype"], array)
        write_safetensors(self.at("again"), dict(reversed(tensors.items())), metadata)
        self.assertEqual(pathlib.Path(self.at("again")).read_bytes(), golden)


def entries_of(path):
    """name -> (dtype, shape, bytes)"""
    content = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + size])
    header.pop("__metadata__", None)
    return {name: (e["dtype"], e["shape"], content[8 + size + e["data_offsets"][0]:8 + size + e["data_offsets"][1]])
            for name, e in header.items()}


class FilesOfTorchItself(Case):
    """tests/golden/pickles/, made by tools/golden/make_pickle_golden.py with torch and the safetensors package."""

    GOLDEN = SOURCE / "tests/golden/pickles"

    def test_state_dicts(self):
        for name in ("state.pth", "state_legacy.pth"):
            with self.subTest(name):
                convert_torch.convert(str(self.GOLDEN / name), self.at(name))
                self.assertEqual(entries_of(self.at(name)), entries_of(self.GOLDEN / "state.safetensors"))

    def test_an_edm_pickle_of_torch_modules(self):
        network, *_ = convert_edm_pickle.convert(str(self.GOLDEN / "edm.pkl"), self.at("out"))
        self.assertEqual(entries_of(self.at("out/model.safetensors")), entries_of(self.GOLDEN / "edm.safetensors"))
        self.assertEqual(network["channel_mult"], [1])


class ImportedPairs(Case):
    TEACHER = "ab" * 32

    def rows(self, count, shape=(3, 8, 8)):
        return [(self.rng.uniform(-1, 1, shape).astype("<f4"), self.rng.standard_normal(shape).astype("<f4"), i % 10) for i in range(count)]

    def write_rows(self, rows, name="rows.h5"):
        with h5py.File(self.at(name), "w") as file:
            for i, (image, noise, label) in enumerate(rows):
                dataset = file.create_dataset(f"data/{i}", data=np.stack([image, noise]))
                dataset.attrs["class_idx"], dataset.attrs["seed"] = label, i
        return self.at(name)

    def run_import(self, paths, **options):
        return import_pairs.import_pairs(paths, self.at("set"), self.TEACHER, "{}", 18, options.pop("rows_per_shard", 4), **options)

    def check_set(self, rows):
        run = onestep("verify", self.at("set"))
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn(f"{len(rows)} pairs", run.stdout)
        image = np.concatenate([h5py.File(self.at(f"set/{name}"))["image"][...] for name in sorted(os.listdir(self.at("set"))) if name.endswith(".h5")])
        noise = np.concatenate([h5py.File(self.at(f"set/{name}"))["noise"][...] for name in sorted(os.listdir(self.at("set"))) if name.endswith(".h5")])
        np.testing.assert_array_equal(image, np.stack([r[0] for r in rows]))
        np.testing.assert_array_equal(noise, np.stack([r[1] for r in rows]))

    def test_rows_become_a_set_that_onestep_verifies(self):
        rows = self.rows(11)
        count, shards, digest = self.run_import([self.write_rows(rows)])
        self.assertEqual((count, shards), (11, 3))
        self.check_set(rows)
        manifest = json.loads(pathlib.Path(self.at("set/manifest.json")).read_text())
        self.assertEqual(manifest["count"], 11)
        with h5py.File(self.at("set/pairs-00002.h5")) as file:
            self.assertEqual(file["label"][...].tolist(), [8, 9, 0])
        first = {name: pathlib.Path(self.at("set"), name).read_bytes() for name in os.listdir(self.at("set"))}
        os.rename(self.at("set"), self.at("before"))
        self.assertEqual(self.run_import([self.at("rows.h5")])[2], digest)
        self.assertEqual({name: pathlib.Path(self.at("set"), name).read_bytes() for name in os.listdir(self.at("set"))}, first)

    def test_more_rows_than_a_block_of_digests(self):
        rows = self.rows(300, (1, 2, 2))
        self.run_import([self.write_rows(rows)], rows_per_shard=300)
        self.check_set(rows)

    def test_dmd2_shards(self):
        rows, paths = self.rows(6, (4, 8, 8)), []
        half = [(i.astype("<f2"), n.astype("<f2"), 0) for i, n, _ in rows]
        for part in range(2):
            storages = []
            chosen = half[3 * part:3 * part + 3]
            value = foreign.state_dict({"latents": np.stack([r[1] for r in chosen]), "images": np.stack([r[0] for r in chosen]),
                                        "prompt_embeds_list": np.zeros((3, 2), "<f2")}, storages)
            foreign.zip_file(self.at(f"{part}.pt"), value, storages)
            paths.append(self.at(f"{part}.pt"))
        self.assert_refused(lambda: self.run_import(paths), "prompt_embeds_list", "--without-prompts")
        self.run_import(paths, without_prompts=True)
        self.check_set([(i.astype("<f4"), n.astype("<f4"), 0) for i, n, _ in half])

    def test_what_does_not_fit_is_refused_and_leaves_nothing(self):
        rows = self.rows(6)
        self.write_rows([(i, 80 * n, c) for i, n, c in rows])
        self.assert_refused(lambda: self.run_import([self.at("rows.h5")]), "noise: expected mean 0 and deviation 1", "--noise-scale")
        self.run_import([self.at("rows.h5")], noise_scale=80.0)
        with h5py.File(self.write_rows(rows, "gap.h5"), "a") as file:
            del file["data/3"]
        os.rename(self.at("set"), self.at("good"))
        self.assert_refused(lambda: self.run_import([self.at("gap.h5")]), "gap.h5: /data/3", "found none")
        with h5py.File(self.write_rows(rows, "label.h5"), "a") as file:
            file["data/2"].attrs["class_idx"] = -1
        self.assert_refused(lambda: self.run_import([self.at("label.h5")]), "/data/2", "class_idx", "found -1")
        with h5py.File(self.write_rows(rows, "shape.h5"), "a") as file:
            del file["data/5"]
            file.create_dataset("data/5", data=np.zeros((2, 3, 4, 4), "<f4")).attrs["class_idx"] = 0
        self.assert_refused(lambda: self.run_import([self.at("shape.h5")]), "/data/5", "(3, 8, 8)")
        rows[1][0][0, 0, 0] = np.nan
        self.write_rows(rows, "nan.h5")
        self.assert_refused(lambda: self.run_import([self.at("nan.h5")]), "expected finite numbers")
        self.write("text.h5", b"no HDF5")
        self.assert_refused(lambda: self.run_import([self.at("text.h5")]), "text.h5")
        self.write("a.txt", b"")
        self.assert_refused(lambda: self.run_import([self.at("a.txt")]), "a.txt", "another ending")


if __name__ == "__main__":
    unittest.main()
