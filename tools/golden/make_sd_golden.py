"""Writes the golden files of Stable Diffusion's networks into tests/golden, computed by diffusers and transformers.

    python tools/golden/make_sd_golden.py [--out tests/golden] [--published]

Small networks (sd_*.safetensors): every weight and input is a keyed draw of its name (keyed_fill.py), so only results are
stored: output.*, grad.<key> of loss = sum(output * probe), grad of the inputs; `config` (the document that the library
itself saves), `keys` (its parameters in order) and `versions` are in __metadata__, and `bf16`: how far PyTorch's own bf16 is from
its fp32 on this network, each output and all gradients of a part together. For bf16 the U-Nets are wider, sd_unet_*_bf16: output, norms of
all gradients, and `bf16`.

sd_published.json: counts, and a digest over "name shape" lines, of networks of published size, built without memory.

With --published (minutes, 10 GB): sd_probes.safetensors, 1,000 values and the moments of each output of the published
networks, filled by the same draws; of loss = sum(output * probe), 1,000 values of some gradients (grad.<key>) and the norm of every
parameter's (grad_norms, in their order).
"""
import argparse
import copy
import hashlib
import json
import math
import pathlib

import diffusers
import numpy as np
import safetensors
import safetensors.torch
import torch
import transformers
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from keyed_fill import keyed_uniform

SEED = 11

UNETS = {
    # SD 1.x: convolutions as projections, one number of heads; three levels, the last without attention.
    "sd_unet_1": (dict(sample_size=8, block_out_channels=(8, 16, 16), layers_per_block=1, cross_attention_dim=12,
                       attention_head_dim=2, norm_num_groups=4,
                       down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
                       up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")), (8, 8)),
    # SD 2.x: linear projections, heads a level, two layers; sides that do not halve evenly.
    "sd_unet_2": (dict(sample_size=7, block_out_channels=(8, 16), layers_per_block=2, cross_attention_dim=20,
                       attention_head_dim=(2, 4), norm_num_groups=4, use_linear_projection=True, upcast_attention=True,
                       down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                       up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")), (7, 5)),
}
# For bf16: groups of two channels at a few pixels carry a rounding of 0.4 % to gradients that are 28 % off, in PyTorch too; groups of four to
# eight channels do not.
BF16_WIDTHS = {"sd_unet_1": dict(block_out_channels=(32, 64, 64), norm_num_groups=8),
               "sd_unet_2": dict(block_out_channels=(32, 64), norm_num_groups=8)}
SD15 = dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
SD21 = dict(sample_size=96, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True,
            upcast_attention=True)
VAE = dict(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=512,
           down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
SMALL_VAE = dict(block_out_channels=(8, 16), layers_per_block=1, latent_channels=4, sample_size=16, norm_num_groups=4,
                 down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
SMALL_TINY = dict(encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8),
                  num_encoder_blocks=(1, 1, 2), num_decoder_blocks=(2, 1, 1))
CLIP_L = dict(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
              max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=768)
CLIP_H = dict(CLIP_L, hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16,
              hidden_act="gelu", projection_dim=512)
SMALL_CLIP = dict(vocab_size=60, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                  max_position_embeddings=9, projection_dim=16)


def clip(**options):
    return CLIPTextModel(CLIPTextConfig(**options)).eval()


def published_name(name):
    """Files carry "text_model."; some versions of transformers dropped it from the class's own keys."""
    return name if name.startswith("text_model.") else f"text_model.{name}"


def draw(name, shape, bound=math.sqrt(3)):
    """An input: unit variance unless told otherwise."""
    return torch.from_numpy(keyed_uniform(name, tuple(shape), SEED, bound))


def fill(network, named=lambda name: name):
    """Weights keep the variance of what they map, norms lie around one; the same rule is in tests/support/keyed_network.h."""
    with torch.no_grad():
        for name, p in network.named_parameters():
            name = named(name)
            if p.dim() == 1 and name.endswith("weight"):
                p.copy_(1 + draw(name, p.shape, 0.5))
            elif p.dim() == 1:
                p.copy_(draw(name, p.shape, 0.1))
            else:
                p.copy_(draw(name, p.shape, math.sqrt(3 / p[0].numel())))
    return network.eval()


def versions():
    return {"torch": torch.__version__, "diffusers": diffusers.__version__, "transformers": transformers.__version__,
            "safetensors": safetensors.__version__, "numpy": np.__version__}


def results(network, run, inputs, named=lambda name: name):
    """run(network, inputs) -> {name: output}; gradients of sum over outputs of (output * probe)."""
    leaves = {k: v.clone().requires_grad_() if v.is_floating_point() else v for k, v in inputs.items()}
    outputs = run(network, leaves)
    loss = sum((y * draw(f"probe.{k}", y.shape)).sum() for k, y in outputs.items())
    loss.backward()
    tensors = {f"output.{k}": y.detach() for k, y in outputs.items()}
    tensors |= {f"grad.input.{k}": v.grad for k, v in leaves.items() if v.is_floating_point()}
    tensors |= {f"grad.{named(k)}": p.grad for k, p in network.named_parameters()}
    dead = [k for k, v in tensors.items() if v is None or not v.any()]
    # A bias in front of a softmax over keys has a gradient that is zero but for rounding.
    assert all(k.endswith(("k_proj.bias", "to_k.bias")) for k in dead), dead
    return {k: v.contiguous() for k, v in tensors.items()}


def part_of(name):
    """The part of a network whose bf16 gradients are judged together."""
    if name.startswith(("decoder.", "post_quant_conv.", "input.z")):
        return "decoder"
    return "encoder" if name.startswith(("encoder.", "quant_conv.", "input.images", "input.noise")) else "network"


def bf16_distances(network, run, inputs, tensors, named=lambda name: name):
    """{"forward": {output: distance}, "backward": {part: distance}} of bf16 from the fp32 results in `tensors`."""
    half = copy.deepcopy(network).to(torch.bfloat16)
    found = results(half, run, {k: v.bfloat16() if v.is_floating_point() else v for k, v in inputs.items()}, named)
    distance = lambda keys: (sum(((found[k].double() - tensors[k].double()) ** 2).sum() for k in keys) /  # noqa: E731
                             sum((tensors[k].double() ** 2).sum() for k in keys)).sqrt().item()
    parts = {}
    for key in tensors:
        if key.startswith("grad."):
            parts.setdefault(part_of(key.removeprefix("grad.")), []).append(key)
    return {"forward": {k.removeprefix("output."): distance([k]) for k in tensors if k.startswith("output.")},
            "backward": {part: distance(keys) for part, keys in parts.items()}}


def save_case(out, name, network, config, run, inputs, named=lambda name: name, stored=(), more=None):
    """A small network's results; `stored`: the inputs that are no draws; `more`: tensors beside the results."""
    tensors = results(network, run, inputs, named)
    bf16 = bf16_distances(network, run, inputs, tensors, named)
    keys = [named(k) for k in network.state_dict() if not k.endswith("position_ids")]
    metadata = {"config": config, "keys": json.dumps(keys), "versions": json.dumps(versions()), "bf16": json.dumps(bf16)}
    path = out / f"{name}.safetensors"
    safetensors.torch.save_file(tensors | {f"input.{k}": inputs[k] for k in stored} | (more or {}), path, metadata=metadata)
    count = sum(p.numel() for p in network.parameters())
    print(f"{path}: {count:,} parameters, {len(tensors)} tensors, {path.stat().st_size:,} bytes; bf16 {bf16}")


def save_bf16_case(out, name, options, height, width):
    """The wider U-Net: its fp32 output and the norm of every gradient, and how far PyTorch's own bf16 is from them."""
    options = options | BF16_WIDTHS[name]
    network = fill(UNet2DConditionModel(**options))
    inputs = unet_inputs(options, height, width, 3, 5)
    tensors = results(network, run_unet, inputs)
    bf16 = bf16_distances(network, run_unet, inputs, tensors)
    norms = torch.stack([tensors[f"grad.{key}"].double().norm() for key, _ in network.named_parameters()]).float()
    metadata = {"config": network.to_json_string(), "versions": json.dumps(versions()), "bf16": json.dumps(bf16)}
    path = out / f"{name}_bf16.safetensors"
    safetensors.torch.save_file({"output.raw": tensors["output.raw"], "grad_norms": norms}, path, metadata=metadata)
    print(f"{path}: bf16 {bf16}")


def unet_inputs(options, height, width, batch, length):
    return {"x": draw("input.x", (batch, 4, height, width)), "text": draw("input.text", (batch, length, options["cross_attention_dim"])),
            "t": torch.tensor([999, 0, 421][:batch])}


def run_unet(net, i):
    return {"raw": net(i["x"], i["t"], i["text"]).sample}


def middle(net, inputs):
    """What leaves mid_block, and the gradients of sum(output * probe) in the inputs."""
    seen = {}
    hook = net.mid_block.register_forward_hook(lambda module, args, output: seen.update(mid=output))
    leaves = {k: v.clone().requires_grad_() if v.is_floating_point() else v for k, v in inputs.items()}
    run_unet(net, leaves)
    hook.remove()
    names = ("x", "text")
    gradients = torch.autograd.grad((seen["mid"] * draw("probe.mid", seen["mid"].shape)).sum(), [leaves[k] for k in names])
    return {"middle.output": seen["mid"].detach().contiguous()} | {f"middle.grad.{k}": g.contiguous() for k, g in zip(names, gradients)}


def run_vae(net, i):
    posterior = net.encode(i["images"]).latent_dist
    outputs = {"mean": posterior.mean, "logvar": posterior.logvar, "images": net.decode(i["z"]).sample}
    return outputs | ({"sample": posterior.mean + posterior.std * i["noise"]} if "noise" in i else {})


def run_tiny(net, i):
    return {"latents": net.encode(i["images"]).latents, "images": net.decode(i["z"]).sample}


def run_clip(net, i):
    return {"hidden": net(i["ids"])[0]}


def small(out):
    for name, (options, (height, width)) in UNETS.items():
        network = fill(UNet2DConditionModel(**options))
        inputs = unet_inputs(options, height, width, 3, 5)
        save_case(out, name, network, network.to_json_string(), run_unet, inputs, more=middle(network, inputs))
        save_bf16_case(out, name, options, height, width)

    network = fill(AutoencoderKL(**SMALL_VAE))
    inputs = {"images": draw("input.images", (2, 3, 12, 8)), "noise": draw("input.noise", (2, 4, 6, 4)),
              "z": draw("input.z", (2, 4, 6, 4))}
    save_case(out, "sd_autoencoder_kl", network, network.to_json_string(), run_vae, inputs)

    network = fill(AutoencoderTiny(**SMALL_TINY))
    inputs = {"images": draw("input.images", (2, 3, 12, 8)), "z": draw("input.z", (2, 4, 3, 2))}
    save_case(out, "sd_tiny_autoencoder", network, network.to_json_string(), run_tiny, inputs)

    for act in ("quick_gelu", "gelu"):
        network = fill(clip(**SMALL_CLIP, hidden_act=act), published_name)
        ids = torch.tensor([[58, 3, 17, 44, 59, 59, 59, 59, 59], [58, 0, 1, 2, 3, 4, 5, 6, 59]])
        save_case(out, f"sd_clip_text_{act}", network, network.config.to_json_string(use_diff=False), run_clip, {"ids": ids},
                  published_name, stored=("ids",))


def digest(network, named=lambda name: name):
    lines = [f"{named(k)} {list(v.shape)}\n" for k, v in network.state_dict().items() if not k.endswith("position_ids")]
    return {"parameters": sum(p.numel() for p in network.parameters()), "tensors": len(lines),
            "keys_sha256": hashlib.sha256("".join(lines).encode()).hexdigest()}


def published_counts(out):
    with torch.device("meta"):
        networks = {"unet_sd15": UNet2DConditionModel(**SD15), "unet_sd21": UNet2DConditionModel(**SD21),
                    "vae": AutoencoderKL(**VAE), "taesd": AutoencoderTiny()}
        counts = {name: digest(network) for name, network in networks.items()}
        counts |= {"clip_l": digest(clip(**CLIP_L), published_name), "clip_h": digest(clip(**CLIP_H), published_name)}
    path = out / "sd_published.json"
    path.write_text(json.dumps({"versions": versions(), "networks": counts}, indent=1) + "\n")
    print(f"{path}: " + ", ".join(f"{k} {v['parameters']:,}/{v['tensors']}" for k, v in counts.items()))


def probes(name, y):
    y = y.detach().contiguous().float().flatten()
    positions = torch.from_numpy(np.linspace(0, y.numel() - 1, 1000).astype(np.int64))
    double = y.double()
    moments = torch.stack([double.mean(), double.std(correction=0), double.norm()])
    return {f"{name}.positions": positions, f"{name}.values": y[positions], f"{name}.moments": moments}


# Of each published network: what is run, its inputs, and the gradients that are probed.
UNET_GRADIENTS = ["input.x", "input.text", "conv_in.weight", "time_embedding.linear_1.weight",
                  "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k.weight", "mid_block.resnets.1.conv2.weight",
                  "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj.weight", "conv_out.weight"]
VAE_GRADIENTS = ["input.images", "input.z", "encoder.conv_in.weight", "encoder.mid_block.attentions.0.to_q.weight",
                 "decoder.up_blocks.1.resnets.0.conv1.weight", "quant_conv.weight", "post_quant_conv.weight"]
TINY_GRADIENTS = ["input.images", "input.z", "encoder.layers.0.weight", "decoder.layers.0.weight"]
CLIP_GRADIENTS = [f"text_model.{key}" for key in ("embeddings.token_embedding.weight", "embeddings.position_embedding.weight",
                                                  "encoder.layers.0.self_attn.q_proj.weight", "encoder.layers.11.mlp.fc1.weight")]


def published_case(prefix, network, run, inputs, gradients, named=lambda name: name):
    tensors = results(fill(network, named), run, inputs, named)
    found = {}
    for key, value in tensors.items():
        if key.startswith("output."):
            found |= probes(f"{prefix}.{key.removeprefix('output.')}", value)
    for key in gradients:
        found |= {name: value for name, value in probes(f"{prefix}.grad.{key}", tensors[f"grad.{key}"]).items()
                  if not name.endswith("moments")}
    norms = [tensors[f"grad.{named(key)}"].double().norm() for key, _ in network.named_parameters()]
    print(f"{prefix}: {len(norms)} gradients", flush=True)
    return found | {f"{prefix}.grad_norms": torch.stack(norms).float()}


def tiny_inputs():
    """Pictures on which fp32 and fp64 decide every ReLU alike: one decided otherwise moves gradients by 1e-4."""
    for attempt in range(100):
        inputs = {"images": draw(f"input.images.{attempt}", (1, 3, 32, 32), 1.0), "z": draw(f"input.z.{attempt}", (1, 4, 4, 4))}
        network = fill(AutoencoderTiny())
        single = results(network, run_tiny, inputs)
        double = results(network.double().zero_grad() or network, run_tiny, {key: value.double() for key, value in inputs.items()})
        error = max(((single[key] - double[key]).norm() / double[key].norm()).item() for key in single)
        print(f"taesd, pictures {attempt}: fp32 from fp64: {error:.1e}", flush=True)
        if error < 2e-5:
            return inputs
    raise RuntimeError("no such pictures found")


def published(out):
    tiny_images = tiny_inputs()
    ids = torch.tensor([[49406, 320, 1125, 539, 320, 2368] + [49407] * 71])
    images = {"images": draw("input.images", (1, 3, 128, 128), 1.0), "z": draw("input.z", (1, 4, 16, 16))}
    cases = {
        "unet": lambda: (UNet2DConditionModel(**SD15), run_unet, unet_inputs(SD15, 32, 32, 1, 77), UNET_GRADIENTS),
        "unet_21": lambda: (UNet2DConditionModel(**SD21), run_unet, unet_inputs(SD21, 16, 16, 1, 77), UNET_GRADIENTS),
        "vae": lambda: (AutoencoderKL(**VAE), run_vae, images, VAE_GRADIENTS),
        "taesd": lambda: (AutoencoderTiny(), run_tiny, tiny_images, TINY_GRADIENTS),
        "clip": lambda: (clip(**CLIP_L), run_clip, {"ids": ids}, CLIP_GRADIENTS, published_name),
        "clip_21": lambda: (clip(**CLIP_H), run_clip, {"ids": ids}, CLIP_GRADIENTS, published_name),
    }
    tensors = {"clip.ids": ids} | {f"taesd.input.{key}": value for key, value in tiny_images.items()}
    for prefix, case in cases.items():
        tensors |= published_case(prefix, *case())
    path = out / "sd_probes.safetensors"
    safetensors.torch.save_file(tensors, path, metadata={"versions": json.dumps(versions())})
    print(f"{path}: {len(tensors)} tensors, {path.stat().st_size:,} bytes")


def main():
    default_out = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=default_out)
    parser.add_argument("--published", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(versions())
    if arguments.published:
        published(arguments.out)
    else:
        small(arguments.out)
        published_counts(arguments.out)


if __name__ == "__main__":
    main()
