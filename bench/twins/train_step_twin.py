#!/usr/bin/env python3
"""One EDM training step of the PyTorch twin of adm_unet, timed on the CPU: what the C++ step is measured against.

    python bench/twins/train_step_twin.py --batch 128 --seconds 10 --weights step.safetensors --mode eager --threads 1

Needs torch and safetensors. The weights file holds every parameter under its published name, `input.image`
[N, C, H, W], `input.noise` [N, C, H, W] of unit variance, `input.sigma` [N], `input.labels` [N, L] one-hot, N at least
the batch, and the network's options as JSON under `config` in __metadata__. The step: weighted denoising loss (mean
over B, C, H, W) of the first `batch` rows, backward, Adam (2e-3, .9, .99, 1e-8), EMA (half-life 2,000 images).
Prints one JSON object; `losses` are those of the first ten steps, to be compared with the other side's.
"""
import argparse
import copy
import json
import sys
import time
from pathlib import Path

import torch
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "golden"))
from adm_unet_twin import AdmUnetConfig, EdmPrecond  # noqa: E402

INPUTS = ("image", "noise", "sigma", "labels")
NUM_CHECKED_LOSSES = 10
EMA_HALF_LIFE_IMAGES = 2000


def load(path, batch):
    """Returns (network, inputs by name); strict about names, shapes and the number of rows."""
    with safe_open(path, framework="pt") as file:
        config = AdmUnetConfig.from_dict(json.loads(file.metadata()["config"]))
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    inputs = {name: tensors.pop(f"input.{name}")[:batch].contiguous() for name in INPUTS}
    short = {name: len(rows) for name, rows in inputs.items() if len(rows) != batch}
    if short:
        raise ValueError(f"{path}: expected at least {batch} rows in every input, found {short}")
    network = EdmPrecond(config)
    filters = {k: v for k, v in network.state_dict().items() if k.endswith("resample_filter")}
    network.load_state_dict(filters | tensors)
    return network, inputs


def make_loss(network, inputs):
    """Returns a function without arguments: forward and the weighted loss, which torch.compile can take whole."""
    sigma = inputs["sigma"]
    sigma_data = network.config.sigma_data
    weight = ((sigma * sigma + sigma_data**2) / (sigma * sigma_data) ** 2)[:, None, None, None]
    image, labels = inputs["image"], inputs["labels"]
    noised = image + sigma[:, None, None, None] * inputs["noise"]

    def loss():
        error = network(noised, sigma, labels) - image
        return (weight * error * error).mean()

    return loss


def make_step(network, inputs, mode, optimizer):
    average = [p.detach().clone() for p in network.parameters()]
    parameters = list(network.parameters())
    rate = 1 - 0.5 ** (len(inputs["image"]) / EMA_HALF_LIFE_IMAGES)
    choice = {"fused": {"fused": True}, "foreach": {"foreach": True}}[optimizer]
    adam = torch.optim.Adam(parameters, lr=2e-3, betas=(0.9, 0.99), eps=1e-8, **choice)
    loss_of = make_loss(network, inputs)
    if mode == "compile":
        loss_of = torch.compile(loss_of)

    def step():
        loss = loss_of()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, rate)
        return loss.item()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--mode", choices=("eager", "compile"), default="eager")
    parser.add_argument("--optimizer", choices=("fused", "foreach"), default="fused", help="fused is the faster one")
    parser.add_argument("--memory-format", choices=("contiguous", "channels_last"), default="contiguous")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    network, inputs = load(arguments.weights, arguments.batch)
    if arguments.memory_format == "channels_last":
        network = network.to(memory_format=torch.channels_last)
        inputs = {name: rows.contiguous(memory_format=torch.channels_last) if rows.dim() == 4 else rows
                  for name, rows in inputs.items()}
    step = make_step(network, inputs, arguments.mode, arguments.optimizer)
    losses = [step() for _ in range(NUM_CHECKED_LOSSES)]  # the warm-up, and the compilation, too
    num_steps, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < arguments.seconds:
        step()
        num_steps += 1
    print(json.dumps({
        "images_per_second": round(num_steps * arguments.batch / elapsed, 1), "loss": losses[0], "losses": losses,
        "num_steps": num_steps, "batch": arguments.batch, "mode": arguments.mode,
        "memory_format": arguments.memory_format, "threads": arguments.threads,
        "optimizer": arguments.optimizer, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
