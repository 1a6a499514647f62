"""Writes tests/golden/trajectories.safetensors: whole trajectories of small networks, by diffusers' pipeline and by Algorithm 2.

    python tools/golden/make_trajectories_golden.py [--out FILE]

Needs torch, diffusers, safetensors, xxhash. Every input is a keyed draw of make_sd_golden.py's seed, so only ends are stored, f32:
    ddim, ddim_guided, pndm_guided, lcm [2,4,8,8]   latents of StableDiffusionPipeline around the U-Net of sd_unet_1 (the same weights): ten
                                            steps, guidance 1 or 5; lcm: one step of LCMScheduler, which returns x0
    heun, euler, one_step [3,3,S,S]         images of the twins song_ddpmpp_edm (heun, one_step) and song_ncsnpp_edm (euler), whose weights
                                            are in tests/golden: Karras et al. 2022, Algorithm 2 without churn, 18 steps, states in fp64
The distance of fp32 from fp64 is printed: it says what rounding alone does over a trajectory.
"""
import argparse
import json
import pathlib

import safetensors.torch
import torch
from diffusers import AutoencoderKL, DDIMScheduler, LCMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open

from make_samplers_golden import STABLE_DIFFUSION
from make_sd_golden import SMALL_VAE, UNETS, draw, fill
from song_unet_twin import Preconditioned, SongUnetConfig
from versions import versions_json

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
STEPS = 10


def pipeline_latents(scheduler, scale, steps, dtype):
    options, (height, width) = UNETS["sd_unet_1"]
    pipeline = StableDiffusionPipeline(
        vae=fill(AutoencoderKL(**SMALL_VAE)), text_encoder=None, tokenizer=None, unet=fill(UNet2DConditionModel(**options)).to(dtype),
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    text = draw("input.text", (2, 5, options["cross_attention_dim"])).to(dtype)
    null = draw("input.null_text", (1, 5, options["cross_attention_dim"])).to(dtype)
    return pipeline(prompt_embeds=text, negative_prompt_embeds=null.expand_as(text), guidance_scale=scale, num_inference_steps=steps,
                    latents=draw("input.noise", (2, 4, height, width)).to(dtype), output_type="latent").images


def twin(name, dtype):
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        network = Preconditioned(SongUnetConfig.from_dict(json.loads(file.metadata()["config"])))
        network.load_state_dict({key: file.get_tensor(f"weights.{key}") for key in network.state_dict()})
        labels = file.get_tensor("input.labels") if "input.labels" in file.keys() else None
    network = network.to(dtype).eval()
    labels = labels if labels is None else labels.to(dtype)
    return lambda x, sigma: network(x.to(dtype), torch.full((len(x),), sigma, dtype=dtype), labels).double()


def edm_images(name, method, dtype, steps=18):
    denoise = twin(name, dtype)
    size = 16 if "ncsnpp" in name else 8
    noise = draw("input.noise", (3, 3, size, size)).double()
    if method == "one_step":
        return denoise(80 * noise, 80.0)
    low, high = 0.002 ** (1 / 7), 80.0 ** (1 / 7)
    sigmas = [(high + i / (steps - 1) * (low - high)) ** 7 for i in range(steps)] + [0.0]
    x = noise * sigmas[0]
    for here, there in zip(sigmas, sigmas[1:]):
        slope = (x - denoise(x, here)) / here
        moved = x + (there - here) * slope
        if method == "heun" and there > 0:
            moved = x + (there - here) * (slope + (moved - denoise(moved, there)) / there) / 2
        x = moved
    return x


CASES = {
    "ddim": lambda dtype: pipeline_latents(DDIMScheduler(**STABLE_DIFFUSION, clip_sample=False, set_alpha_to_one=False), 1.0, STEPS, dtype),
    "ddim_guided": lambda dtype: pipeline_latents(
        DDIMScheduler(**STABLE_DIFFUSION, clip_sample=False, set_alpha_to_one=False), 5.0, STEPS, dtype),
    "pndm_guided": lambda dtype: pipeline_latents(PNDMScheduler(**STABLE_DIFFUSION, skip_prk_steps=True, set_alpha_to_one=False), 5.0, STEPS, dtype),
    "lcm": lambda dtype: pipeline_latents(LCMScheduler(**STABLE_DIFFUSION, clip_sample=False, set_alpha_to_one=False), 1.0, 1, dtype),
    "heun": lambda dtype: edm_images("song_ddpmpp_edm", "heun", dtype),
    "euler": lambda dtype: edm_images("song_ncsnpp_edm", "euler", dtype),
    "one_step": lambda dtype: edm_images("song_ddpmpp_edm", "one_step", dtype),
}


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=GOLDEN / "trajectories.safetensors")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    made_with = versions_json("diffusers", "torch")
    print(made_with)
    tensors = {}
    for name, case in CASES.items():
        single, double = case(torch.float32), case(torch.float64)
        print(f"{name}: fp32 from fp64: {((single - double).norm() / double.norm()).item():.1e}, deviation {single.std().item():.3g}")
        tensors[name] = single.float().contiguous()
    safetensors.torch.save_file(tensors, out, {"versions": made_with})
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
