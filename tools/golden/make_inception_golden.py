"""Writes tests/golden/inception.safetensors and fid.json: what pytorch-fid, torch-fidelity and clean-fid make of pictures on keyed weights.

    python tools/golden/make_inception_golden.py [--out tests/golden]

Needs torch, pytorch-fid, torch-fidelity, clean-fid, safetensors, xxhash. No weights are downloaded: both packages' networks are
filled by keyed_feature_nets.py. Tensors, for the pictures `small` [1,3,48,40] and `large` [1,3,331,350] of test_picture():
    <picture>.<resize>.input_probe [1000]   every (numel // 1000)-th value of the network's input [1,3,299,299]
    <picture>.<resize>.features [1,2048]    <picture>.<resize>.logits [1,1008]   <picture>.<resize>.logits_unbiased [1,1008]
<resize>: pytorch_fid by pytorch-fid's network; tf1 by torch-fidelity's whole extractor; clean_fid by clean-fid's resizer and
pytorch-fid's network (clean-fid's own is a TorchScript file that has to be downloaded).

fid.json: the whole way from bytes to FID under each resize, of two sets of numbered_picture()s. Only the first FID_COLUMNS features
count, so that the covariances of so few pictures have full rank and pytorch-fid's sqrtm needs no correction.
"""
import argparse
import importlib.metadata
import json
import pathlib
import tempfile

import numpy as np
import safetensors.torch
import torch

from keyed_feature_nets import keyed_weight, test_picture
from versions import versions, versions_json

PACKAGES = ("torch", "pytorch-fid", "torch-fidelity", "clean-fid", "pillow")
FID_PICTURES, FID_COLUMNS = 24, 12


def keyed_state(module):
    return {name: torch.from_numpy(np.ascontiguousarray(keyed_weight(name, tuple(value.shape))))
            for name, value in module.state_dict().items() if not name.endswith("num_batches_tracked")}


def pytorch_fid_network():
    """The package's own constructor, with keyed weights in place of the download."""
    from pytorch_fid import inception
    download, load = inception.load_state_dict_from_url, torch.nn.Module.load_state_dict
    inception.load_state_dict_from_url = lambda *_, **__: {}
    torch.nn.Module.load_state_dict = lambda self, *_, **__: load(self, keyed_state(self), strict=False)
    try:
        return inception.fid_inception_v3().eval()
    finally:
        torch.nn.Module.load_state_dict, inception.load_state_dict_from_url = load, download


def pytorch_fid_outputs(network, x):
    """pool3 of pytorch-fid's blocks, then its fc layer with and without the bias."""
    pool = torch.nn.Sequential(
        network.Conv2d_1a_3x3, network.Conv2d_2a_3x3, network.Conv2d_2b_3x3, torch.nn.MaxPool2d(3, 2),
        network.Conv2d_3b_1x1, network.Conv2d_4a_3x3, torch.nn.MaxPool2d(3, 2), network.Mixed_5b, network.Mixed_5c,
        network.Mixed_5d, network.Mixed_6a, network.Mixed_6b, network.Mixed_6c, network.Mixed_6d, network.Mixed_6e,
        network.Mixed_7a, network.Mixed_7b, network.Mixed_7c, torch.nn.AdaptiveAvgPool2d((1, 1)))
    features = pool(x).flatten(1)
    return features, network.fc(features), features @ network.fc.weight.t()


def numbered_picture(i, shift):
    """[3,32,32] uint8, another one for every i and shift; tests/worker/run/inception_fid_test.cpp has the same."""
    y, x = np.mgrid[0:32, 0:32].astype(np.int64)
    planes = [((3 * (x + i) ** 2 + 5 * (y + 2 * i) ** 2 + x * y * (c + 1 + i % 5) + 11 * c * x) >> shift) & 255 for c in range(3)]
    return np.stack(planes).astype(np.uint8)


def input_of(resize, image, clean_resize):
    """The network's input under one resize, [1,3,299,299]; None for tf1, whose extractor resizes by itself."""
    batch = torch.from_numpy(image)[None]
    if resize == "pytorch_fid":  # ToTensor, then InceptionV3.forward's resize and normalisation
        return 2 * torch.nn.functional.interpolate(batch.float() / 255, size=(299, 299), mode="bilinear", align_corners=False) - 1
    if resize == "clean_fid":
        cleaned = torch.from_numpy(clean_resize(image.transpose(1, 2, 0)).transpose(2, 0, 1).copy())[None].float()
        return (cleaned - 128) / 128
    return None


def fid_cases(network, fidelity, clean_resize):
    from pytorch_fid.fid_score import calculate_frechet_distance
    result = {}
    for resize in ("pytorch_fid", "tf1", "clean_fid"):
        stats = []
        for shift in (6, 5):
            rows = []
            for i in range(FID_PICTURES):
                image = numbered_picture(i, shift)
                x = input_of(resize, image, clean_resize)
                features = fidelity(torch.from_numpy(image)[None])[0] if x is None else pytorch_fid_outputs(network, x)[0]
                rows.append(features.reshape(-1)[:FID_COLUMNS].double().numpy())
            rows = np.stack(rows)
            stats += [rows.mean(0), np.cov(rows, rowvar=False)]
        result[resize] = float(calculate_frechet_distance(*stats))
        print(f"fid, {resize}: {result[resize]}", flush=True)
    return result


def main():
    default_out = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=default_out)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in
                    ("torch", "torchvision", "pytorch-fid", "torch-fidelity", "clean-fid", "pillow", "safetensors", "xxhash")))

    from cleanfid.resize import build_resizer
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    network = pytorch_fid_network()
    with tempfile.TemporaryDirectory() as folder:
        state = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
        weights = pathlib.Path(folder) / "keyed.pth"
        torch.save(state, weights)
        fidelity = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits", "logits_unbiased"],
                                               feature_extractor_weights_path=str(weights))
    captured = {}
    fidelity.Conv2d_1a_3x3.register_forward_pre_hook(lambda _, args: captured.update(x=args[0]))
    clean_resize = build_resizer("clean")

    tensors = {}
    with torch.no_grad():
        for picture, size in (("small", (48, 40)), ("large", (331, 350))):
            image = test_picture(*size)
            batch = torch.from_numpy(image)[None]
            inputs, outputs = {}, {}
            inputs["pytorch_fid"] = input_of("pytorch_fid", image, clean_resize)
            outputs["pytorch_fid"] = pytorch_fid_outputs(network, inputs["pytorch_fid"])
            outputs["tf1"] = fidelity(batch)
            inputs["tf1"] = captured["x"]
            inputs["clean_fid"] = input_of("clean_fid", image, clean_resize)
            outputs["clean_fid"] = pytorch_fid_outputs(network, inputs["clean_fid"])
            for resize, x in inputs.items():
                probe = x.flatten()[:: x.numel() // 1000][:1000]
                key = f"{picture}.{resize}"
                tensors[f"{key}.input_probe"] = probe
                for name, value in zip(("features", "logits", "logits_unbiased"), outputs[resize]):
                    tensors[f"{key}.{name}"] = value.reshape(1, -1)
                features = outputs[resize][0]
                print(f"{key}: input mean {x.mean():.4f}; features mean {features.mean():.4f} largest {features.max():.4f}")
        fid = fid_cases(network, fidelity, clean_resize)
    tensors = {key: value.contiguous().clone() for key, value in tensors.items()}
    path = out / "inception.safetensors"
    safetensors.torch.save_file(tensors, path, {"versions": versions_json(*PACKAGES)})
    (out / "fid.json").write_text(json.dumps({"versions": versions(*PACKAGES), "columns": FID_COLUMNS, "pictures": FID_PICTURES,
                                              "fid": fid}, indent=1) + "\n")
    print(f"{path}: {len(tensors)} tensors, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
