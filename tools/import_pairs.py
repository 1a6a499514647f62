#!/usr/bin/env python3
"""Makes a Onestep pair set of other people's noise-image pairs.

    python3 tools/import_pairs.py pairs.h5 sets/cifar10 --teacher teachers/cifar10/model.safetensors --steps 18
    python3 tools/import_pairs.py 0.pt 1.pt sets/sdxl --teacher unet.safetensors --steps 50 --without-prompts

Reads, by the files' ending:
  .h5, .hdf5  one dataset a row, /data/<i>, float [2, C, H, W]: the image first, then its noise; attributes class_idx and, where
              they are, seed
  .pt         a dictionary with tensors `latents` (the noise) and `images`, [n, C, H, W] or lists of [C, H, W], as DMD2 keeps them;
              prompts have no place in a pair set: --without-prompts leaves them out, else the file is refused
Rows keep their order. Noise must have unit variance (--noise-scale S divides it by S first). Writes shards, their digests and, last,
the sealed manifest (docs/formats.md), all readable by `onestep verify`. Needs Debian's python3-numpy, python3-h5py and libxxhash0.
Exits 2 with one line when something is refused.
"""
import argparse
import ctypes
import hashlib
import json
import os
import sys

import h5py
import numpy as np

from safe_pickle import Refused
from torch_files import Tensor, load_torch_file, short, write_text

BLOCK_ROWS = 256
PROMPTS = ("prompt_embeds_list", "prompt_embeds", "pooled_prompt_embeds", "prompts")


class _Hash128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


def load_xxh3():
    library = ctypes.CDLL("libxxhash.so.0")
    library.XXH3_128bits.restype = _Hash128
    library.XXH3_128bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]

    def digest(data):
        found = library.XXH3_128bits(data, len(data))
        return found.low, found.high

    return digest


# ---- Readers: iterators of (image [C,H,W], noise [C,H,W], class) -----------------------------------


def rows_of_hdf5(path):
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise Refused(f"{path}: expected a whole HDF5 file, found: {error}") from error
    with file:
        group = file.get("data")
        if not isinstance(group, h5py.Group) or not len(group):
            raise Refused(f"{path}: /data: expected a group of rows, found none")
        for i in range(len(group)):
            where = f"{path}: /data/{i}"
            if group.get(str(i), getlink=True).__class__ is not h5py.HardLink:
                raise Refused(f"{where}: expected one row a number from 0 to {len(group) - 1}, found none")
            row = group[str(i)]
            if not isinstance(row, h5py.Dataset) or row.ndim != 4 or row.shape[0] != 2 or row.dtype.kind != "f" or row.external:
                raise Refused(f"{where}: expected floats [2, C, H, W] in this file, found {short(row)}")
            label = row.attrs.get("class_idx")
            if label is None or np.shape(label) != () or not float(label).is_integer() or label < 0:
                raise Refused(f"{where}: attribute class_idx: expected a class, found {short(label)}")
            try:
                image, noise = row[...].astype("<f4")
            except OSError as error:
                raise Refused(f"{where}: expected data, found: {error}") from error
            yield image, noise, int(label), where


def widened(tensor, where):
    if not isinstance(tensor, Tensor) or tensor.dtype not in ("F16", "BF16", "F32", "F64"):
        raise Refused(f"{where}: expected a tensor of floats, found {short(tensor)}")
    if tensor.dtype == "BF16":
        return (tensor.array.astype("<u4") << 16).view("<f4").reshape(tensor.array.shape)
    return tensor.array.astype("<f4")


def batch(value, where):
    """[n, C, H, W] of a tensor or of a list of tensors."""
    values = [widened(v, where) for v in (value if isinstance(value, (list, tuple)) else [value])]
    arrays = [v[None] if v.ndim == 3 else v for v in values]
    if not arrays or any(a.ndim != 4 or a.shape[1:] != arrays[0].shape[1:] for a in arrays):
        raise Refused(f"{where}: expected [n, C, H, W], found {short([v.shape for v in values])}")
    return np.concatenate(arrays)


def rows_of_torch(path, without_prompts):
    value = load_torch_file(path)
    if not isinstance(value, dict) or not {"latents", "images"} <= set(value):
        found = sorted(map(str, value)) if isinstance(value, dict) else value
        raise Refused(f"{path}: expected a dictionary with latents and images, found {short(found)}")
    extra = sorted(set(value) - {"latents", "images"} - set(PROMPTS))
    if extra:
        raise Refused(f"{path}: expected latents, images and prompts, found also {short(extra)}")
    if any(name in value for name in PROMPTS) and not without_prompts:
        raise Refused(f"{path}: expected no prompts, found {short(sorted(set(value) & set(PROMPTS)))}: a pair set has no place for "
                      "them; --without-prompts leaves them out")
    noise, images = batch(value["latents"], f"{path}: latents"), batch(value["images"], f"{path}: images")
    if noise.shape != images.shape:
        raise Refused(f"{path}: images: expected {noise.shape} as latents, found {images.shape}")
    for i in range(len(noise)):
        yield images[i], noise[i], 0, f"{path}: row {i}"


def all_rows(paths, without_prompts):
    for path in paths:
        if path.endswith((".h5", ".hdf5")):
            yield from rows_of_hdf5(path)
        elif path.endswith(".pt"):
            yield from rows_of_torch(path, without_prompts)
        else:
            raise Refused(f"{path}: expected .h5, .hdf5 or .pt, found another ending")


# ---- The pair set ----------------------------------------------------------------------------------


def write_attribute(root, name, value):
    space = h5py.h5s.create(h5py.h5s.SCALAR)
    if isinstance(value, str):
        data = value.encode()
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(len(data))
        kind.set_strpad(h5py.h5t.STR_NULLPAD)
        kind.set_cset(h5py.h5t.CSET_UTF8)
        h5py.h5a.create(root, name.encode(), kind, space).write(np.array(data, f"S{len(data)}"), kind)
    else:
        kind = h5py.h5t.STD_U64LE if name == "seed" else h5py.h5t.STD_I64LE
        array = np.array(value, "<u8" if name == "seed" else "<i8")
        h5py.h5a.create(root, name.encode(), kind, space).write(array)


def write_shard(folder, info, index, rows, digest_of):
    """rows: {dataset: array}. Returns the manifest's record of the shard."""
    name = f"pairs-{index:05d}.h5"
    path, temporary = os.path.join(folder, name), os.path.join(folder, name + ".import.tmp")
    count = len(rows["label"])
    first = index * info["rows_per_shard"]
    rows["index"] = np.arange(first, first + count, dtype="<i8")
    order = ("noise", "image", "label", "index")
    digests = [[digest_of(rows[d][b:b + BLOCK_ROWS].tobytes()) for d in order] for b in range(0, count, BLOCK_ROWS)]
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_attr_phase_change(64, 0)
    creation.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V18)
    file = h5py.h5f.create(temporary.encode(), h5py.h5f.ACC_TRUNC, creation, access)
    root = h5py.h5g.open(file, b"/")
    attributes = {"format": "onestep-pairs", "format_version": 2, "block_rows": BLOCK_ROWS, "shard_index": index,
                  "shard_first": first, "shard_count": count, **info}
    for key in sorted(attributes):
        write_attribute(root, key, attributes[key])
    for key, data in [(d, rows[d]) for d in order] + [("block_digests", np.array(digests, "<u8"))]:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.CONTIGUOUS)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_obj_track_times(False)
        kind = {"<f4": h5py.h5t.IEEE_F32LE, "<i8": h5py.h5t.STD_I64LE, "<u8": h5py.h5t.STD_U64LE}[data.dtype.str]
        dataset = h5py.h5d.create(file, key.encode(), kind, h5py.h5s.create_simple(data.shape), plist)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(data))
        del dataset
    del root
    file.close()
    with open(temporary, "rb") as done:
        os.fsync(done.fileno())
        content = done.read()
    os.rename(temporary, path)
    return {"index": index, "file": name, "first": first, "count": count, "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest()}


def check_noise(noise, where):
    """Unit variance: off by more than chance and 5 % is another scale."""
    margin = 0.05 + 5 / np.sqrt(noise.size)
    mean, deviation = float(noise.mean(dtype="f8")), float(noise.std(dtype="f8"))
    if abs(mean) > margin or abs(deviation - 1) > margin:
        raise Refused(f"{where}: noise: expected mean 0 and deviation 1, found {mean:.3f} and {deviation:.3f}; --noise-scale S divides "
                      "by S")


def stacked(rows, noise_scale):
    shape = rows[0][0].shape
    for image, noise, _, where in rows:
        if image.shape != shape or noise.shape != shape:
            raise Refused(f"{where}: expected {shape} as the first row, found {image.shape}")
        if not np.isfinite(image).all() or not np.isfinite(noise).all():
            raise Refused(f"{where}: expected finite numbers, found others")
    noise = (np.stack([r[1] for r in rows]) / np.float32(noise_scale)).astype("<f4")
    check_noise(noise, f"{rows[0][3]} to {rows[-1][3]}")
    return {"noise": noise, "image": np.stack([r[0] for r in rows]).astype("<f4"),
            "label": np.array([r[2] for r in rows], "<i8")}


def count_rows(paths, without_prompts):
    total = 0
    for path in paths:
        if path.endswith((".h5", ".hdf5")):
            with h5py.File(path, "r") as file:
                total += len(file["data"]) if isinstance(file.get("data"), h5py.Group) else 0
        else:
            total += sum(1 for _ in all_rows([path], without_prompts))
    return total


def import_pairs(paths, folder, teacher_sha256, sampler, steps, rows_per_shard, without_prompts=False, noise_scale=1.0):
    """Returns (rows, shards, digest of the set); raises Refused, OSError."""
    digest_of = load_xxh3()
    if os.path.exists(folder) and os.listdir(folder):
        raise Refused(f"{folder}: expected a new or empty folder, found files in it")
    try:
        total = count_rows(paths, without_prompts)
    except OSError as error:
        raise Refused(f"{', '.join(paths)}: cannot be read: {error}") from error
    if total == 0:
        raise Refused(f"{', '.join(paths)}: expected rows, found none")
    info, shards, rows = None, [], []
    made = not os.path.exists(folder)
    os.makedirs(folder, exist_ok=True)
    try:
        for row in all_rows(paths, without_prompts):
            rows.append(row)
            if info is None:
                channels, height, width = row[0].shape
                info = {"teacher_sha256": teacher_sha256, "sampler": sampler, "steps": steps, "seed": 0, "channels": channels,
                        "height": height, "width": width, "count": total, "rows_per_shard": rows_per_shard}
            if len(rows) == rows_per_shard:
                shards.append(write_shard(folder, info, len(shards), stacked(rows, noise_scale), digest_of))
                rows = []
        if rows:
            shards.append(write_shard(folder, info, len(shards), stacked(rows, noise_scale), digest_of))
    except Refused:
        for name in os.listdir(folder):
            if name.startswith("pairs-"):
                os.unlink(os.path.join(folder, name))
        if made:
            os.rmdir(folder)
        raise
    manifest = {"format": "onestep-pair-set", "format_version": 2, "shards": shards, **info}
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    manifest["manifest_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    sealed = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_text(os.path.join(folder, "manifest.json"), sealed)
    return total, len(shards), hashlib.sha256(sealed.encode()).hexdigest()


def teacher_digest(text):
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return text
    digest = hashlib.sha256()
    with open(text, "rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", help=".h5 or .pt files, in the order of the rows")
    parser.add_argument("folder", help="new folder for the pair set")
    parser.add_argument("--teacher", required=True, help="the teacher's model.safetensors, or its SHA-256")
    parser.add_argument("--steps", type=int, required=True, help="sampler steps that made the images")
    parser.add_argument("--sampler", default='{"kind":"imported"}', help="JSON of the sampler's options, for the record")
    parser.add_argument("--rows-per-shard", type=int, default=10000)
    parser.add_argument("--without-prompts", action="store_true")
    parser.add_argument("--noise-scale", type=float, default=1.0)
    arguments = parser.parse_args()
    try:
        json.loads(arguments.sampler)
        if arguments.steps < 1 or arguments.rows_per_shard < 1 or not arguments.noise_scale > 0:
            raise Refused("--steps, --rows-per-shard and --noise-scale: expected numbers above 0")
        rows, shards, digest = import_pairs(arguments.files, arguments.folder, teacher_digest(arguments.teacher), arguments.sampler,
                                            arguments.steps, arguments.rows_per_shard, arguments.without_prompts,
                                            arguments.noise_scale)
    except (Refused, OSError, ValueError, RecursionError) as error:
        print(f"import_pairs.py: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{arguments.folder}: {rows:,} pairs in {shards} shards; sha256 {digest}")


if __name__ == "__main__":
    main()
