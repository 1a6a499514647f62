"""Writes tests/golden/inception.safetensors: what pytorch-fid, torch-fidelity and clean-fid make of pictures on keyed weights.

    python tools/golden/make_inception_golden.py [--out FILE]

Needs torch, pytorch-fid, torch-fidelity, clean-fid, safetensors, xxhash. No weights are downloaded: both packages' networks are
filled by keyed_feature_nets.py. Tensors, for the pictures `small` [1,3,48,40] and `large` [1,3,331,350] of test_picture():
    <picture>.<resize>.input_probe [1000]   every (numel // 1000)-th value of the network's input [1,3,299,299]
    <picture>.<resize>.features [1,2048]    <picture>.<resize>.logits [1,1008]   <picture>.<resize>.logits_unbiased [1,1008]
<resize>: pytorch_fid by pytorch-fid's network; tf1 by torch-fidelity's whole extractor; clean_fid by clean-fid's resizer and
pytorch-fid's network (clean-fid's own is a TorchScript file that has to be downloaded).
"""
import argparse
import importlib.metadata
import pathlib
import tempfile

import numpy as np
import safetensors.torch
import torch

from keyed_feature_nets import keyed_weight, test_picture


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


def main():
    default_out = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "inception.safetensors"
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
            # pytorch_fid: ToTensor, then InceptionV3.forward's resize and normalisation.
            half_pixel = torch.nn.functional.interpolate(batch.float() / 255, size=(299, 299), mode="bilinear",
                                                         align_corners=False)
            inputs["pytorch_fid"] = 2 * half_pixel - 1
            outputs["pytorch_fid"] = pytorch_fid_outputs(network, inputs["pytorch_fid"])
            outputs["tf1"] = fidelity(batch)
            inputs["tf1"] = captured["x"]
            cleaned = torch.from_numpy(clean_resize(image.transpose(1, 2, 0)).transpose(2, 0, 1).copy())[None].float()
            inputs["clean_fid"] = (cleaned - 128) / 128
            outputs["clean_fid"] = pytorch_fid_outputs(network, inputs["clean_fid"])
            for resize, x in inputs.items():
                probe = x.flatten()[:: x.numel() // 1000][:1000]
                key = f"{picture}.{resize}"
                tensors[f"{key}.input_probe"] = probe
                for name, value in zip(("features", "logits", "logits_unbiased"), outputs[resize]):
                    tensors[f"{key}.{name}"] = value.reshape(1, -1)
                features = outputs[resize][0]
                print(f"{key}: input mean {x.mean():.4f}; features mean {features.mean():.4f} largest {features.max():.4f}")
    tensors = {key: value.contiguous().clone() for key, value in tensors.items()}
    safetensors.torch.save_file(tensors, out)
    print(f"{out}: {len(tensors)} tensors, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
