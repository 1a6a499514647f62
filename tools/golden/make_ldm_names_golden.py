"""Writes tests/golden/ldm_names.json: names of a Stable Diffusion 1.x file of the original code -> names of diffusers.

    python tools/golden/make_ldm_names_golden.py [--out FILE]

The list of original names is written here from the structure of the published file; which name of diffusers each becomes is
what diffusers' own converters do with it. The UNet's and the autoencoder's names must come out complete.
"""
import argparse
import json
import pathlib

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

SD15 = dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
VAE = dict(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
           down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)


def both(*modules):
    return [f"{module}.{kind}" for module in modules for kind in ("weight", "bias")]


def unet_resnet(at, shortcut):
    parts = ["in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3"] + ["skip_connection"] * shortcut
    return both(*(f"{at}.{part}" for part in parts))


def unet_attention(at):
    names = both(f"{at}.norm", f"{at}.proj_in", f"{at}.proj_out")
    block = f"{at}.transformer_blocks.0"
    for attention in ("attn1", "attn2"):
        names += [f"{block}.{attention}.to_{x}.weight" for x in "qkv"] + both(f"{block}.{attention}.to_out.0")
    return names + both(f"{block}.ff.net.0.proj", f"{block}.ff.net.2", *(f"{block}.norm{i}" for i in (1, 2, 3)))


def unet_names():
    names = both("time_embed.0", "time_embed.2", "input_blocks.0.0", "out.0", "out.2")
    for i in range(1, 12):
        if i % 3 == 0:
            names += both(f"input_blocks.{i}.0.op")
            continue
        names += unet_resnet(f"input_blocks.{i}.0", i in (4, 7))
        if i < 9:
            names += unet_attention(f"input_blocks.{i}.1")
    names += unet_resnet("middle_block.0", False) + unet_attention("middle_block.1") + unet_resnet("middle_block.2", False)
    for i in range(12):
        names += unet_resnet(f"output_blocks.{i}.0", True)
        if i >= 3:
            names += unet_attention(f"output_blocks.{i}.1")
        if i in (2, 5, 8):
            names += both(f"output_blocks.{i}.{1 if i == 2 else 2}.conv")
    return names


def vae_names():
    names = both("quant_conv", "post_quant_conv")
    for half, side, blocks in (("encoder", "down", 2), ("decoder", "up", 3)):
        names += both(f"{half}.conv_in", f"{half}.norm_out", f"{half}.conv_out")
        for block in ("mid.block_1", "mid.block_2"):
            names += both(*(f"{half}.{block}.{part}" for part in ("norm1", "conv1", "norm2", "conv2")))
        names += both(*(f"{half}.mid.attn_1.{part}" for part in ("norm", "q", "k", "v", "proj_out")))
        for level in range(4):
            for i in range(blocks):
                parts = ["norm1", "conv1", "norm2", "conv2"]
                # Encoder: 128 -> 256 -> 512 at levels 1 and 2; decoder: 512 -> 256 -> 128 at levels 1 and 0.
                parts += ["nin_shortcut"] * (i == 0 and level in ((1, 2) if half == "encoder" else (0, 1)))
                names += both(*(f"{half}.{side}.{level}.block.{i}.{part}" for part in parts))
            if level != (3 if half == "encoder" else 0):
                names += both(f"{half}.{side}.{level}." + ("downsample.conv" if half == "encoder" else "upsample.conv"))
    return names


def mapping(prefix, names, convert, network):
    """Each original tensor carries its number, so that the converted ones say where they come from."""
    checkpoint = {}
    for i, name in enumerate(names):
        value = torch.full((1, 1, 1, 1), float(i)) if "attn_1" in name and name.endswith("weight") else torch.tensor([float(i)])
        checkpoint[prefix + name] = value
    converted = convert(checkpoint)
    if set(converted) != set(network.state_dict()):
        raise RuntimeError(f"{prefix}: {sorted(set(converted) ^ set(network.state_dict()))}")
    return {prefix + names[int(value.flatten()[0])]: name for name, value in converted.items()}


def main():
    default_out = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "ldm_names.json"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=default_out)
    out = parser.parse_args().out
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**SD15), AutoencoderKL(**VAE)
    golden = {
        "unet": mapping("model.diffusion_model.", unet_names(), lambda c: convert_ldm_unet_checkpoint(c, dict(unet.config)), unet),
        "vae": mapping("first_stage_model.", vae_names(), lambda c: convert_ldm_vae_checkpoint(c, dict(vae.config)), vae)}
    out.write_text(json.dumps({"diffusers": diffusers.__version__} | golden, indent=0, sort_keys=True) + "\n")
    print(f"diffusers {diffusers.__version__}; {out}: {len(golden['unet'])} and {len(golden['vae'])} names")


if __name__ == "__main__":
    main()
