"""Writes tests/golden/discrete_samplers.json and tests/golden/sigma_samplers.json: tables and whole trajectories.

    python tools/golden/make_samplers_golden.py [--out tests/golden]

discrete_samplers.json comes from diffusers' DDIMScheduler and PNDMScheduler with Stable Diffusion 1.5's settings; the
network is in closed form, raw(x, t) = 0.9 x + 0.1 sin(3 x) + 0.2 cos(t / 200), one number at a time, in fp64. Besides the
trajectories it holds the table of alpha-bar (fp32), the timesteps, and x0 from raw epsilon, v and x0 predictions.

sigma_samplers.json comes from Karras et al. 2022, Algorithm 2, written here: Euler, and Heun with noise put back (the
published ImageNet-64 churn), D(x; sigma) = 0.3 x / (1 + sigma^2) + 0.1, fp64. The noise is keyed_fill.keyed_normal of
(seed, stream 15, step, row); rows are images of 1 x 2 x 2.
"""
import argparse
import json
import math
import pathlib

import diffusers
import numpy as np
import torch
from diffusers import DDIMScheduler, PNDMScheduler

from keyed_fill import STREAM_SAMPLER_NOISE, keyed_normal
from versions import versions

STARTS = (-1.7, -0.2, 0.4, 2.1)
STABLE_DIFFUSION = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                        steps_offset=1, timestep_spacing="leading")


def raw(x, t):
    return 0.9 * x + 0.1 * torch.sin(3 * x) + 0.2 * math.cos(t / 200)


def scheduler_of(kind, **options):
    if kind == "ddim":
        return DDIMScheduler(**STABLE_DIFFUSION, clip_sample=False, **options)
    return PNDMScheduler(**STABLE_DIFFUSION, skip_prk_steps=True, **options)


def discrete():
    trajectories = []
    for kind, steps, prediction, to_one in (("ddim", 50, "epsilon", False), ("ddim", 20, "v_prediction", True),
                                            ("ddim", 7, "epsilon", True), ("pndm", 50, "epsilon", False),
                                            ("pndm", 20, "v_prediction", False), ("pndm", 5, "epsilon", True)):
        scheduler = scheduler_of(kind, prediction_type=prediction, set_alpha_to_one=to_one)
        scheduler.set_timesteps(steps)
        x = torch.tensor(STARTS, dtype=torch.float64)
        for t in scheduler.timesteps:
            x = scheduler.step(raw(x, t.item()), t, x).prev_sample
        trajectories.append({"kind": kind, "steps": steps, "prediction": prediction, "set_alpha_to_one": to_one,
                             "timesteps": scheduler.timesteps.tolist(), "start": list(STARTS), "end": x.tolist()})
    conversions = []
    for prediction in ("epsilon", "v_prediction", "sample"):
        scheduler = scheduler_of("ddim", prediction_type=prediction, set_alpha_to_one=False)
        scheduler.set_timesteps(1000 // 3)
        for t in (1, 400, 997):
            x, output = torch.tensor([0.7, -1.3], dtype=torch.float64), torch.tensor([0.25, -0.9], dtype=torch.float64)
            x0 = scheduler.step(output, t, x).pred_original_sample
            conversions.append({"prediction": prediction, "t": t, "x_t": x.tolist(), "raw": output.tolist(), "x0": x0.tolist()})
    table = scheduler_of("ddim").alphas_cumprod
    return {"versions": versions("diffusers", "torch", "numpy"), "alpha_bar": [float(a) for a in table], "trajectories": trajectories,
            "conversions": conversions}


def denoise(x, sigma):
    return 0.3 * x / (1 + sigma * sigma) + 0.1


def sigma_case(method, steps, churn, seed, first_row):
    low, high = 0.002 ** (1 / 7), 80.0 ** (1 / 7)
    sigmas = [(high + i / (steps - 1) * (low - high)) ** 7 for i in range(steps)] + [0.0]
    x = np.repeat(np.array(STARTS)[:, None], 4, axis=1) * sigmas[0]  # [rows, pixels]
    for i, (here, there) in enumerate(zip(sigmas, sigmas[1:])):
        if churn["S_churn"] > 0 and churn["S_min"] <= here <= churn["S_max"]:
            hat = here * (1 + min(churn["S_churn"] / steps, math.sqrt(2) - 1))
            noise = np.stack([keyed_normal(seed, STREAM_SAMPLER_NOISE, i, first_row + row, 4) for row in range(len(x))])
            x = x + math.sqrt(hat ** 2 - here ** 2) * churn["S_noise"] * noise
            here = hat
        slope = (x - denoise(x, here)) / here
        moved = x + (there - here) * slope
        if method == "heun" and there > 0:
            slope_there = (moved - denoise(moved, there)) / there
            moved = x + (there - here) * (slope + slope_there) / 2
        x = moved
    return {"kind": method, "steps": steps, **churn, "seed": seed, "first_row": first_row, "start": list(STARTS),
            "end": x.tolist()}


def main():
    default_out = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=default_out)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, diffusers {diffusers.__version__}, numpy {np.__version__}")
    none = {"S_churn": 0.0, "S_min": 0.0, "S_max": 1e12, "S_noise": 1.0}
    published = {"S_churn": 40.0, "S_min": 0.05, "S_max": 50.0, "S_noise": 1.003}
    cases = [sigma_case("euler", 18, none, 0, 0), sigma_case("heun", 18, published, 9, 2 ** 33),
             sigma_case("heun", 256, published, 9, 100), sigma_case("euler", 40, published, 10, 0)]
    (out / "sigma_samplers.json").write_text(json.dumps({"versions": versions("numpy"), "trajectories": cases}, indent=1) + "\n")
    (out / "discrete_samplers.json").write_text(json.dumps(discrete()) + "\n")


if __name__ == "__main__":
    main()
