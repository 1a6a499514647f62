"""Writes tests/golden/metrics.json and tests/golden/resize.safetensors: FID, IS, KID, precision and recall, resizes and npz.

    python tools/golden/make_metrics_golden.py [--out tests/golden] [--frechet-2048]

Needs torch, numpy, scipy, pytorch-fid, torch-fidelity, clean-fid, pillow, safetensors, xxhash. Features are keyed draws
(keyed_fill.py), so both sides have the same bits: `metrics.json` holds what the packages make of them. The FID of rank-deficient
sets is the nuclear norm of A1 A2^T by fp64 singular values, which needs no root of a singular matrix; beside it stands the usual
formula by scipy.linalg.eigh. `resize.safetensors` holds small pictures resized by the packages; for large ones on bytes the
SHA-256 of Pillow's result. The .npz files are numpy's own, in its spellings. With --frechet-2048 (minutes): frechet_2048.json alone, the
distance at Inception's 2,048 dimensions.
"""
import argparse
import hashlib
import importlib.metadata
import io
import json
import pathlib
import zipfile

import numpy as np
import safetensors.torch
import scipy.linalg
import torch
from PIL import Image

from keyed_feature_nets import SEED, test_picture
from keyed_fill import keyed_uniform
from versions import versions_json


def features(name, rows, columns, shift=0.0):
    """[rows, columns] fp64: keyed draws mixed by a keyed matrix, some directions much weaker than others."""
    mixing = keyed_uniform(f"{name}.mixing", (columns, columns), SEED, 1.0).astype(np.float64) / np.sqrt(columns)
    strength = 2.0 ** -(np.arange(columns) * 8.0 / columns)
    draws = keyed_uniform(name, (rows, columns), SEED, 1.0).astype(np.float64)
    return (draws * strength) @ mixing + shift


def stats(x):
    return x.mean(0), np.cov(x, rowvar=False)


def by_eigh(a, b):
    (m1, c1), (m2, c2) = stats(a), stats(b)
    values, vectors = scipy.linalg.eigh(c1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(scipy.linalg.eigh(root @ c2 @ root, eigvals_only=True), 0)).sum()
    return float(((m1 - m2) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * cross)


def by_singular_values(a, b):
    a1, a2 = (a - a.mean(0)) / np.sqrt(len(a) - 1), (b - b.mean(0)) / np.sqrt(len(b) - 1)
    cross = scipy.linalg.svdvals(a1 @ a2.T).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + (a1 ** 2).sum() + (a2 ** 2).sum() - 2 * cross)


SMALL_FID = (("full", (400, 300), 64), ("wide", (60, 80), 128), ("one_wide", (400, 80), 128))
LARGE_FID = (("full_2048", (4200, 4100), 2048), ("one_wide_2048", (4200, 700), 2048))


def fid_cases(sets=SMALL_FID):
    from pytorch_fid.fid_score import calculate_frechet_distance
    cases = []
    for name, rows, columns in sets:
        a, b = features(f"fid.{name}.a", rows[0], columns), features(f"fid.{name}.b", rows[1], columns, 0.05)
        case = {"name": name, "rows": rows, "columns": columns, "singular_values": by_singular_values(a, b),
                "eigh": by_eigh(a, b)}
        if min(rows) > columns:
            case["pytorch_fid"] = float(calculate_frechet_distance(*stats(a), *stats(b)))
        cases.append(case)
        print(case)
    return cases


def torch_fidelity_cases():
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric
    logits = torch.from_numpy(features("isc", 205, 24) * 12)
    a, b = (torch.from_numpy(features("kid.a", 150, 48)), torch.from_numpy(features("kid.b", 170, 48, 0.1)))
    points = torch.from_numpy(features("prc", 570, 12))
    real, fake = points[:260], points[260:] * 0.9 + 0.02
    result = {
        "isc": {str(k): float(v) for k, v in isc_features_to_metric(logits, splits=10, shuffle=True, rng_seed=2020).items()},
        "isc_unshuffled": {str(k): float(v) for k, v in isc_features_to_metric(logits, splits=10, shuffle=False).items()},
        "kid": {str(k): float(v) for k, v in kid_features_to_metric(
            a, b, kid_subsets=8, kid_subset_size=100, rng_seed=2020, verbose=False).items()},
        "prc": {str(k): float(v) for k, v in prc_features_to_metric(fake, real, prc_neighborhood=3, verbose=False).items()},
        "permutation": np.random.RandomState(2020).permutation(60).tolist(),
        "choices": [np.random.RandomState(7).choice(1000, 20, replace=False).tolist()],
    }
    print({key: value for key, value in result.items() if isinstance(value, dict)})
    return result


def resize_cases(tensors):
    from cleanfid.resize import make_resizer
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
    digests = []
    for name, size, to in (("up", (12, 9), (20, 31)), ("down", (50, 41), (17, 12))):
        picture = test_picture(*size)
        batch = torch.from_numpy(picture)[None].float()
        tensors[f"{name}.tf1"] = interpolate_bilinear_2d_like_tensorflow1x(batch, size=to, align_corners=False)
        # clean-fid's resizer takes (width, height).
        clean = make_resizer("PIL", False, "bicubic", (to[1], to[0]))(picture.transpose(1, 2, 0))
        tensors[f"{name}.clean_fid"] = torch.from_numpy(clean.transpose(2, 0, 1).copy()).float()[None]
        for filter_name, filter_ in (("lanczos", Image.LANCZOS), ("bicubic", Image.BICUBIC)):
            bytes_ = np.asarray(Image.fromarray(picture.transpose(1, 2, 0)).resize((to[1], to[0]), filter_))
            tensors[f"{name}.{filter_name}"] = torch.from_numpy(bytes_.transpose(2, 0, 1).copy())[None]
    for size, to in (((512, 512), (256, 256)), ((640, 480), (256, 256)), ((100, 130), (256, 256)), ((512, 512), (512, 256))):
        picture = Image.fromarray(test_picture(*size).transpose(1, 2, 0))
        result = np.asarray(picture.resize((to[1], to[0]), Image.LANCZOS)).transpose(2, 0, 1)
        digests.append({"from": size, "to": to, "sha256": hashlib.sha256(result.tobytes()).hexdigest()})
    return digests


def npz_files(folder):
    mu, sigma = np.arange(3) / 7, np.arange(9).reshape(3, 3) / 11
    np.savez(folder / "npz_stored.npz", mu=mu, sigma=sigma)
    np.savez_compressed(folder / "npz_deflated.npz", mu=mu.astype(np.float32), sigma=np.asfortranarray(sigma))
    np.savez(folder / "npz_object.npz", mu=np.array([{"a": 1}], dtype=object), sigma=sigma, big=mu.astype(">f8"), whole=np.arange(3))
    wide = io.BytesIO()
    np.lib.format.write_array(wide, mu, version=(2, 0))
    with zipfile.ZipFile(folder / "npz_version2.npz", "w") as archive:
        archive.writestr(zipfile.ZipInfo("mu.npy"), wide.getvalue())


def main():
    default_out = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=default_out)
    parser.add_argument("--frechet-2048", action="store_true")
    options = parser.parse_args()
    out = options.out
    torch.set_num_threads(1)
    versions = {name: importlib.metadata.version(name) for name in
                ("numpy", "scipy", "torch", "pytorch-fid", "torch-fidelity", "clean-fid", "pillow", "xxhash")}
    print(versions)
    if options.frechet_2048:
        (out / "frechet_2048.json").write_text(json.dumps({"versions": versions, "fid": fid_cases(LARGE_FID)}, indent=1) + "\n")
        return
    tensors = {}
    golden = {"versions": versions, "fid": fid_cases(), "pil": resize_cases(tensors), **torch_fidelity_cases()}
    (out / "metrics.json").write_text(json.dumps(golden, indent=1) + "\n")
    safetensors.torch.save_file({key: value.contiguous() for key, value in tensors.items()}, out / "resize.safetensors",
                                {"versions": versions_json("torch-fidelity", "clean-fid", "pillow")})
    npz_files(out)


if __name__ == "__main__":
    main()
