#!/usr/bin/env python3
"""Loads an Onestep export folder in PyTorch and reproduces the images it carries.

    python tools/read_export.py exports/digits [--tolerance 1e-4]

Needs torch and safetensors. The folder holds config.json, model.safetensors and samples.safetensors (noise
[N, C, H, W] of unit variance, labels [N], image [N, C, H, W]); image = D(sigma noise; sigma, label) at config.json's
generator_sigma, before any clamp. A generator of several steps has their sigmas as student_timesteps and the noise behind each as
noise_1, ...: image = D(image + sigma noise_i; sigma, label) at each next sigma. Exits 1 when an image differs by more than the tolerance, 2 on a bad folder.
"""
import argparse
import json
import pathlib
import sys

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "golden"))
from adm_unet_twin import AdmUnet, AdmUnetConfig  # noqa: E402
from song_unet_twin import Preconditioned, SongUnet, SongUnetConfig  # noqa: E402


def load_export(folder):
    """Returns (network in eval mode, config); throws ValueError naming what does not fit."""
    config = json.loads((folder / "config.json").read_text())
    sampler = "few_step" if "student_timesteps" in config else "one_step"
    for key, expected in {"format": "onestep-export", "format_version": 1, "sampler": sampler}.items():
        if config.get(key) != expected:
            raise ValueError(f"{folder}/config.json: {key}: expected {expected!r}, found {config.get(key)!r}")
    song = config["network"].get("class") == "song_unet"
    options = SongUnetConfig.from_dict(config["network"]) if song else AdmUnetConfig.from_dict(config["network"])
    network = Preconditioned(options, SongUnet if song else AdmUnet)
    tensors = load_file(folder / "model.safetensors")
    buffers = {name: tensor for name, tensor in network.named_buffers() if name not in tensors}
    try:
        network.load_state_dict(tensors | {k: v for k, v in buffers.items() if k in network.state_dict()})
    except RuntimeError as error:  # strict: missing, extra and misshapen tensors are all named
        raise ValueError(f"{folder}/model.safetensors: {error}") from error
    return network.eval(), config


@torch.no_grad()
def largest_difference(folder):
    network, config = load_export(folder)
    samples = load_file(folder / "samples.safetensors")
    noise, labels, expected = samples["noise"], samples["labels"], samples["image"]
    if noise.shape != expected.shape or len(labels) != len(noise):
        raise ValueError(f"{folder}/samples.safetensors: noise {tuple(noise.shape)}, labels {tuple(labels.shape)}, "
                         f"image {tuple(expected.shape)}: expected one image and one label for each noise")
    num_classes = network.config.label_dim
    one_hot = F.one_hot(labels, num_classes).float() if num_classes else None
    x = torch.zeros_like(noise)
    for i, t in enumerate(config.get("student_timesteps", [config["generator_sigma"]])):
        sigma = torch.full((len(noise),), float(t))
        x = network(x + sigma[:, None, None, None] * (samples[f"noise_{i}"] if i else noise), sigma, one_hot)
    return (x - expected).abs().max().item(), len(noise)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--tolerance", type=float, default=1e-4, help="on a scale where pixels span -1..1")
    arguments = parser.parse_args()
    try:
        difference, count = largest_difference(arguments.folder)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        print(f"read_export.py: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{count} images reproduced; largest difference {difference:.2e}, tolerance {arguments.tolerance:.0e}")
    sys.exit(0 if difference <= arguments.tolerance else 1)


if __name__ == "__main__":
    main()
