"""Writes the golden files of song_unet, the four preconditioners and the published networks into tests/golden.

    python tools/golden/make_edm_golden.py [--out tests/golden] [--small] [--published] [--imagenet]

Needs torch, numpy, safetensors and xxhash. Small networks, song_<case>.safetensors, f32:
    weights.<key>                  every parameter and buffer under its published name, random and nonzero
    input.x [B, C, H, W]           input.sigma [B]    input.labels [B, L] one-hot (if any)    input.probe [B, C, H, W]
    output.denoised [B, C, H, W] = D(x; sigma);   grad.<key>, grad.x: of sum(denoised * probe)
with the network's options as JSON under `config`, the packages' versions under `versions`. The distance to fp64 is printed: it says what rounding alone does.

Published networks, published_edm.safetensors and published_adm.safetensors: every parameter and the input are keyed draws (keyed_fill.py, published_fill
below), so neither is stored: `<network>.output` [1000] are probed values of D, element (i * 7919) mod size;
`<network>.moments` [2] mean and deviation of all of D; `<network>.grad.<key>` [1000] probed likewise,
and `<network>.grad_norms` the norm of every parameter's gradient, in their order, but of the augmentation's, which none reaches.
"""
import argparse
import copy
import math
import pathlib

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F

import adm_unet_twin
from keyed_fill import keyed_uniform
from song_unet_twin import PUBLISHED, Preconditioned, SongUnetConfig
from versions import versions_json

SMALL = dict(image_size=8, model_channels=8, channel_mult=(1, 2), channel_mult_emb=2, num_blocks=1,
             attention_resolutions=(4,), label_dim=3)
NCSN = dict(channel_mult_noise=2, resample_filter=(1, 3, 3, 1), encoder_type="residual", embedding_type="fourier")
CASES = {
    "ddpmpp_edm": SongUnetConfig(**SMALL),
    "ncsnpp_edm": SongUnetConfig(**{**SMALL, **NCSN, "image_size": 16, "channel_mult": (1, 1, 2), "label_dim": 0}),
    "ddpmpp_vp": SongUnetConfig(**SMALL, preconditioner="vp"),
    "ncsnpp_ve": SongUnetConfig(**{**SMALL, **NCSN}, preconditioner="ve"),
    "ddpmpp_iddpm": SongUnetConfig(**SMALL, preconditioner="iddpm"),
}
SEED, NUM_PROBES, NUM_GRADIENT_PROBES, STRIDE = 20, 1000, 1000, 7919
PUBLISHED_CASES = {  # images a batch, and the gradients that are probed
    "cifar10-cond-vp": (2, ["x", "model.map_layer0.weight", "model.enc.32x32_conv.weight", "model.dec.16x16_block4.qkv.weight"]),
    "cifar10-uncond-vp": (1, ["x", "model.map_layer1.weight", "model.enc.16x16_down.conv0.weight", "model.dec.8x8_in0.qkv.weight"]),
    "cifar10-cond-ve": (1, ["x", "model.map_layer0.weight", "model.enc.8x8_aux_residual.weight", "model.dec.16x16_block4.qkv.weight"]),
    "cifar10-uncond-ve": (2, ["x", "model.map_layer1.weight", "model.enc.16x16_aux_residual.weight", "model.dec.8x8_in0.proj.weight"]),
    "ffhq64-vp": (1, ["x", "model.map_layer0.weight", "model.enc.64x64_conv.weight", "model.dec.16x16_block4.qkv.weight"]),
    "ffhq64-ve": (1, ["x", "model.map_layer1.weight", "model.enc.32x32_aux_residual.weight", "model.dec.8x8_in0.proj.weight"]),
}


def fill_small(network, generator):
    with torch.no_grad():
        for name, p in network.named_parameters():
            fan_in = p[0].numel() if p.dim() > 1 else 16
            base, spread = (1.0 if name.endswith("weight") else 0.0, 0.3) if "norm" in name else (0.0, fan_in ** -0.5)
            p.copy_(base + spread * torch.randn(p.shape, generator=generator))
        for name, b in network.named_buffers():
            if name.endswith("freqs"):
                b.copy_(torch.randn(b.shape, generator=generator))


def small_case(config, seed):
    generator = torch.Generator().manual_seed(seed)
    network = Preconditioned(config)
    fill_small(network, generator)
    sigma = torch.tensor([0.05, 0.9, 20.0])
    shape = (3, config.image_channels, config.image_size, config.image_size)
    x = torch.randn(shape, generator=generator) * (0.25 + sigma * sigma).sqrt()[:, None, None, None]
    probe = torch.randn(shape, generator=generator)
    labels = F.one_hot(torch.tensor([2, 0, 1]), config.label_dim).float() if config.label_dim else None

    def evaluate(dtype):
        net = copy.deepcopy(network).to(dtype)
        leaf = x.to(dtype).clone().requires_grad_()
        denoised = net(leaf, sigma, labels if labels is None else labels.to(dtype))
        (denoised * probe.to(dtype)).sum().backward()
        result = {"output.denoised": denoised.detach(), "grad.x": leaf.grad}
        for key, p in net.named_parameters():
            if key != "model.map_augment.weight":
                result[f"grad.{key}"] = p.grad
        return result

    single, double = evaluate(torch.float32), evaluate(torch.float64)
    worst = max(((single[k] - double[k]).norm() / double[k].norm()).item() for k in single)
    dead = [key for key, value in single.items() if not value.any()]
    if dead:
        raise RuntimeError(f"no gradient reaches {dead}")
    tensors = {f"weights.{key}": value for key, value in network.state_dict().items()}
    tensors |= {"input.x": x, "input.sigma": sigma, "input.probe": probe} | single
    if labels is not None:
        tensors["input.labels"] = labels
    return {key: value.detach().contiguous() for key, value in tensors.items()}, worst


def published_fill(network):
    """The rule that the C++ test has too: by name and shape, with bounds that keep activations of order one."""
    with torch.no_grad():
        for name, p in network.named_parameters():
            last = name.rsplit(".", 1)[1]
            if "norm" in name:
                value = keyed_uniform(name, p.shape, SEED, 0.3) + np.float32(1.0 if last == "weight" else 0.0)
            elif last == "bias":
                value = keyed_uniform(name, p.shape, SEED, 0.1)
            else:
                value = keyed_uniform(name, p.shape, SEED, math.sqrt(3 / p[0].numel()))
            p.copy_(torch.from_numpy(value))
        for name, b in network.named_buffers():
            if name.endswith("freqs"):
                b.copy_(torch.from_numpy(keyed_uniform(name, b.shape, SEED, 16.0)))


def probed(tensor, count):
    flat = tensor.detach().reshape(-1)
    return flat[(torch.arange(count) * STRIDE) % flat.numel()].contiguous()


def published_case(name, network, size, num_classes, batch, gradients):
    published_fill(network)
    sigma = torch.tensor([0.4, 12.5])[:batch]
    scale = torch.sqrt(0.25 + sigma.double() ** 2).float()[:, None, None, None]
    x = torch.from_numpy(keyed_uniform("input.x", (batch, 3, size, size), SEED, math.sqrt(3))) * scale
    labels = F.one_hot(torch.tensor([3, 8])[:batch], num_classes).float() if num_classes else None
    leaf = x.clone().requires_grad_(bool(gradients))
    with torch.set_grad_enabled(bool(gradients)):
        denoised = network(leaf, sigma, labels)
    tensors = {f"{name}.output": probed(denoised, NUM_PROBES),
               f"{name}.moments": torch.stack([denoised.detach().double().mean(), denoised.detach().double().std()]).float()}
    if gradients:
        probe = torch.from_numpy(keyed_uniform("input.probe", x.shape, SEED, 1.0))
        (denoised * probe).sum().backward()
        named = dict(network.named_parameters()) | {"x": leaf}
        for key in gradients:
            tensors[f"{name}.grad.{key}"] = probed(named[key].grad, NUM_GRADIENT_PROBES)
        tensors[f"{name}.grad_norms"] = torch.stack([p.grad.double().norm() for _, p in network.named_parameters()
                                                     if p.grad is not None]).float()
    print(f"{name}: output deviation {denoised.std().item():.4f}")
    return tensors


def main():
    default_out = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=default_out)
    for part in ("small", "published", "imagenet"):
        parser.add_argument(f"--{part}", action="store_true", help="this part alone")
    options = parser.parse_args()
    everything = not (options.small or options.published or options.imagenet)
    torch.set_num_threads(1)
    made_with = versions_json("torch", "numpy", "safetensors")
    print(f"torch {torch.__version__}, numpy {np.__version__}, safetensors {safetensors.__version__}")
    if options.small or everything:
        for seed, (name, config) in enumerate(CASES.items(), start=1):
            tensors, worst = small_case(config, seed)
            path = options.out / f"song_{name}.safetensors"
            safetensors.torch.save_file(tensors, path, {"config": config.to_json(), "versions": made_with})
            print(f"{path}: {path.stat().st_size:,} bytes; furthest from fp64: {worst:.1e}")
    if options.published or everything:
        tensors = {}
        for name, (batch, gradients) in PUBLISHED_CASES.items():
            config = PUBLISHED[name][0]
            tensors |= published_case(name, Preconditioned(config), config.image_size, config.label_dim, batch, gradients)
        safetensors.torch.save_file(tensors, options.out / "published_edm.safetensors", {"versions": made_with})
    if options.imagenet or everything:
        network = adm_unet_twin.EdmPrecond(adm_unet_twin.AdmUnetConfig())
        gradients = ["x", "model.map_label.weight", "model.enc.64x64_conv.weight", "model.enc.16x16_block2.qkv.weight",
                     "model.dec.8x8_in0.affine.weight", "model.out_conv.weight"]
        tensors = published_case("imagenet64-cond-adm", network, 64, 1000, 1, gradients)
        safetensors.torch.save_file(tensors, options.out / "published_adm.safetensors", {"versions": made_with})


if __name__ == "__main__":
    main()
