"""Writes the golden files of adm_unet into tests/golden: forward, loss and every gradient of two small networks.

    python tools/golden/make_adm_unet_golden.py [--out tests/golden]

Needs torch and safetensors. Each file holds f32 tensors
    weights.<key>                  every parameter under its published name, random and nonzero
    input.x [B, C, H, W]           input.sigma [B]    input.labels [B, L] one-hot    input.probe [B, C, H, W]
    output.denoised [B, C, H, W]   output.loss [] = sum(denoised * probe)
    grad.<key>                     d loss / d parameter;   grad.x [B, C, H, W]
and the network's options as JSON under `config` in __metadata__, the packages' versions under `versions`. The distance to fp64 is printed: it says what
rounding alone does, so what tolerance a test may ask for.
"""
import argparse
import copy
import pathlib

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F

from adm_unet_twin import AdmUnetConfig, EdmPrecond, fill_random
from versions import versions_json

CASES = {
    "adm_unet_digits": AdmUnetConfig(
        image_size=14, image_channels=1, pixel_unshuffle=2, model_channels=16, channel_mult=(1,),
        channel_mult_emb=2, num_blocks=2, attention_resolutions=(7,), channels_per_head=16,
        label_dim=10, noise_frequencies="geometric"),
    "adm_unet_two_levels": AdmUnetConfig(
        image_size=8, image_channels=3, pixel_unshuffle=1, model_channels=8, channel_mult=(1, 2),
        channel_mult_emb=2, num_blocks=1, attention_resolutions=(4,), channels_per_head=8,
        label_dim=3, noise_frequencies="published"),
}


def golden_tensors(config, seed):
    generator = torch.Generator().manual_seed(seed)
    network = EdmPrecond(config)
    fill_random(network, generator)
    shape = (3, config.image_channels, config.image_size, config.image_size)
    sigma = torch.tensor([0.05, 0.9, 20.0])
    x = torch.randn(shape, generator=generator) * (0.25 + sigma * sigma).sqrt()[:, None, None, None]
    labels = F.one_hot(torch.tensor([2, 0, 1]), config.label_dim).float()
    probe = torch.randn(shape, generator=generator)

    def evaluate(network, dtype):
        network = copy.deepcopy(network).to(dtype)
        leaf = x.clone().to(dtype).requires_grad_()
        denoised = network(leaf, sigma, labels.to(dtype))
        loss = (denoised * probe.to(dtype)).sum()
        loss.backward()
        result = {"output.denoised": denoised.detach(), "output.loss": loss.detach(), "grad.x": leaf.grad}
        for key, parameter in network.named_parameters():
            result[f"grad.{key}"] = parameter.grad
        return result

    single = evaluate(network, torch.float32)
    double = evaluate(network, torch.float64)
    worst = max(((single[k] - double[k]).abs().max() / double[k].abs().max()).item() for k in single)
    dead = [key for key, value in single.items() if not value.any()]
    if dead:
        raise RuntimeError(f"no gradient reaches {dead}")
    tensors = {f"weights.{key}": p.detach() for key, p in network.named_parameters()}
    tensors |= {"input.x": x, "input.sigma": sigma, "input.labels": labels, "input.probe": probe} | single
    return {key: value.contiguous() for key, value in tensors.items()}, worst


def main():
    default_out = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=default_out)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, safetensors {safetensors.__version__}")
    for seed, (name, config) in enumerate(CASES.items(), start=1):
        tensors, worst = golden_tensors(config, seed)
        path = out / f"{name}.safetensors"
        safetensors.torch.save_file(tensors, path, metadata={"config": config.to_json(), "versions": versions_json("torch", "safetensors")})
        print(f"{path}: {len(tensors)} tensors, {path.stat().st_size:,} bytes; furthest from fp64: "
              f"{worst:.1e} of a tensor's largest value")


if __name__ == "__main__":
    main()
