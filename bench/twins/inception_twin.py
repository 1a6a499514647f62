"""pytorch-fid's features, timed, and scipy's two ways to the Fréchet distance: the other sides of bench/inception.cpp.

    python bench/twins/inception_twin.py --weights FILE --seconds 10     prints images_per_second, features of the first picture
    python bench/twins/inception_twin.py --statistics FILE               writes an .npz of two sets of 2,048-dimensional statistics
    python bench/twins/inception_twin.py --frechet FILE [--eigh]         prints seconds and value by sqrtm, or by eigh

Needs torch, pytorch-fid, safetensors, scipy.
"""
import argparse
import json
import time

import numpy as np


def time_features(path, seconds):
    import safetensors.torch
    import torch
    from pytorch_fid import inception
    torch.set_num_threads(1)
    tensors = safetensors.torch.load_file(path)
    pictures = tensors.pop("input.pictures")
    # The package's own network, filled without a download.
    load = torch.nn.Module.load_state_dict
    inception.load_state_dict_from_url = lambda *_, **__: None
    torch.nn.Module.load_state_dict = lambda self, *_, **__: load(self, tensors, strict=False)
    model = inception.InceptionV3([3]).eval()
    torch.nn.Module.load_state_dict = load

    def run():
        with torch.no_grad():
            return model(pictures.float() / 255)[0].flatten(1)

    features = run()
    start, batches = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        run()
        batches += 1
    elapsed = time.perf_counter() - start
    return {"images_per_second": batches * len(pictures) / elapsed, "features": features[0].tolist(), "num_batches": batches}


def write_statistics(path):
    random = np.random.default_rng(1)
    arrays = {}
    for i in (1, 2):
        mixing = random.normal(size=(2048, 2048)) / 2048 ** 0.5
        strength = 10.0 ** -(np.arange(2048) * 3 / 2048)  # eigenvalues over six decades, as features have
        x = (random.normal(size=(3000, 2048)) * strength) @ mixing + 0.02 * i
        arrays[f"mu{i}"], arrays[f"sigma{i}"] = x.mean(0), np.cov(x, rowvar=False)
    np.savez(path, **arrays)
    return {"path": path}


def time_frechet(path, by_eigh):
    import scipy.linalg
    arrays = np.load(path)
    m1, c1, m2, c2 = (arrays[key] for key in ("mu1", "sigma1", "mu2", "sigma2"))
    start = time.perf_counter()
    if by_eigh:
        values, vectors = scipy.linalg.eigh(c1)
        root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
        cross = np.sqrt(np.maximum(scipy.linalg.eigh(root @ c2 @ root, eigvals_only=True), 0)).sum()
    else:
        cross = np.trace(scipy.linalg.sqrtm(c1 @ c2)).real
    value = ((m1 - m2) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * cross
    return {"seconds": time.perf_counter() - start, "frechet": float(value), "scipy": scipy.__version__}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--statistics")
    parser.add_argument("--frechet")
    parser.add_argument("--eigh", action="store_true")
    arguments = parser.parse_args()
    if arguments.weights:
        print(json.dumps(time_features(arguments.weights, arguments.seconds)))
    elif arguments.statistics:
        print(json.dumps(write_statistics(arguments.statistics)))
    else:
        print(json.dumps(time_frechet(arguments.frechet, arguments.eigh)))


if __name__ == "__main__":
    main()
