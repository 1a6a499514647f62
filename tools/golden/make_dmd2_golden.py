"""Writes tests/golden/dmd2_steps.safetensors: ten iterations of distribution matching distillation with each option of DMD2.

    python tools/golden/make_dmd2_golden.py [--out FILE]

Needs torch, safetensors, numpy, xxhash. A twin written from the papers (DMD, arXiv 2311.18828, Algorithms 1 to 3; DMD2, arXiv
2405.14867) around the PyTorch twin of adm_unet: autograd over the whole batch, torch's AdamW and clipping. Every number is a keyed
draw, so only what came of it is stored, f32, under the case's name:
    <case>.losses [10, 6]        loss_dm, loss_reg, loss_fake, loss_gan, loss_discriminator, discriminator_accuracy of each
                                 iteration; 0 where an iteration has none
    <case>.generator [n]         all parameters after the last one, flattened and joined in the order of their names
    <case>.fake [m]              the same of the fake score, the discriminator's head among them
The cases' settings are JSON in the metadata. The distance of fp32 from fp64 is printed: it says what rounding alone does.
"""
import argparse
import copy
import json
import math
import pathlib

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
import xxhash  # noqa: F401  keyed_fill needs it
from torch import nn

from adm_unet_twin import AdmUnet, AdmUnetConfig, EdmPrecond, UNetBlock, group_norm
from keyed_fill import keyed_normal, keyed_uniform, keyed_words, unit_uniform
from versions import versions_json

CONFIG = AdmUnetConfig(image_size=8, image_channels=1, model_channels=4, channel_mult=(1,), channel_mult_emb=2, num_blocks=1,
                       attention_resolutions=(), channels_per_head=4, label_dim=3, noise_frequencies="geometric")
SHAPE = (CONFIG.image_channels, CONFIG.image_size, CONFIG.image_size)
# common/philox.h
TRAIN_NOISE, PAIR_NOISE = 4, 5
Z, LABEL, SCORE_SIGMA, SCORE_NOISE, FAKE_SIGMA, FAKE_NOISE = 6, 7, 8, 9, 10, 11
STUDENT_STEP, BACKWARD_NOISE, GAN_SIGMA, GAN_NOISE, DISCRIMINATOR_SIGMA, DISCRIMINATOR_NOISE = 16, 17, 19, 20, 21, 22
GENERATOR_SEED, REAL_SEED, FAKE_SEED = 11, 12, 13  # of the initial weights
STEPS = 10

COMMON = {"seed": 5, "batch": 4, "pairs": 0, "lambda_reg": 0.0, "every": 1, "joins": False, "t_G": [80.0], "gan": False,
          "lambda_gan": 0.5, "lambda_discriminator": 0.25, "score": [0.5, 5.0], "gan_range": [0.05, 20.0],
          # The constant is large so that a gradient that is zero but for rounding (the keys' biases) stays without effect.
          "learning_rate": 1e-3, "beta2": 0.99, "epsilon": 1e-4, "clip_norm": 1.0}
CASES = {
    "two_time_scales": {"every": 3},
    "joined": {"pairs": 2, "lambda_reg": 0.25, "joins": True},
    "two_steps": {"t_G": [80.0, 2.5]},
    "gan": {"gan": True},
    "all": {"pairs": 2, "lambda_reg": 0.25, "joins": True, "every": 2, "t_G": [80.0, 5.0, 0.75], "gan": True},
}


class Head(nn.Module):
    """4 x 4 convolutions of stride 2 with GroupNorm and SiLU down to one pixel, then 1 x 1 to the logit."""

    def __init__(self, channels, side):
        super().__init__()
        self.depth = 0
        while side > 1:
            self.add_module(f"conv{self.depth}", nn.Conv2d(channels, channels, 4, stride=2, padding=1))
            self.add_module(f"norm{self.depth}", group_norm(channels))
            side, self.depth = side // 2, self.depth + 1
        self.out = nn.Conv2d(channels, 1, 1)

    def forward(self, x):
        for i in range(self.depth):
            x = F.silu(getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(x)))
        return self.out(x).flatten()


class Network(EdmPrecond):
    """The denoiser, and the logit of its bottleneck where it has a head."""

    def __init__(self, with_head):
        super().__init__(CONFIG)
        assert isinstance(self.model, AdmUnet)
        if with_head:
            self.discriminator = Head(CONFIG.model_channels, CONFIG.image_size)

    def logit(self, x, sigma, labels):
        net = self.model
        angles = (sigma.log() / 4)[:, None] * net.frequencies
        emb = F.silu(net.map_layer0(torch.cat([angles.cos(), angles.sin()], dim=1)))
        emb = F.silu(net.map_layer1(emb) + net.map_label(labels))
        h = x / (sigma * sigma + self.config.sigma_data ** 2).sqrt()[:, None, None, None]
        for block in net.enc.values():
            h = block(h, emb) if isinstance(block, UNetBlock) else block(h)
        for name in ("in0", "in1"):
            h = net.dec[f"{CONFIG.image_size}x{CONFIG.image_size}_{name}"](h, emb)
        return self.discriminator(h)


def fill(network, seed):
    with torch.no_grad():
        for name, p in network.named_parameters():
            vector, weight = p.dim() == 1, name.endswith("weight")
            bound = (0.5 if weight else 0.1) if vector else math.sqrt(3 / p[0].numel())
            p.copy_(torch.from_numpy(keyed_uniform(name, tuple(p.shape), seed, bound)))
            if vector and weight:
                p.add_(1)
    return network


class Draws:
    def __init__(self, seed, step, dtype):
        self.seed, self.step, self.dtype = seed, step, dtype

    def normal(self, stream, samples, step=None):
        count = math.prod(SHAPE)
        rows = [keyed_normal(self.seed, stream, self.step if step is None else step, i, count).astype(np.float32) for i in samples]
        return torch.from_numpy(np.stack(rows).reshape(-1, *SHAPE)).to(self.dtype)

    def words(self, stream, samples):
        return np.array([keyed_words(self.seed, stream, self.step, i, 1)[0, 0] for i in samples], np.uint32)

    def sigma(self, stream, samples, lo_hi):
        lo, hi = (v ** (1 / 7) for v in lo_hi)
        u = unit_uniform(self.words(stream, samples)).astype(np.float64)
        return torch.from_numpy(((hi + u * (lo - hi)) ** 7).astype(np.float32)).to(self.dtype)

    def integer(self, stream, samples, limit):
        return torch.from_numpy((self.words(stream, samples).astype(np.uint64) * np.uint64(limit) >> np.uint64(32)).astype(np.int64))

    def labels(self, index):
        return F.one_hot(index, CONFIG.label_dim).to(self.dtype)


def at(sigma, x):
    return sigma[:, None, None, None] * x


def freeze(network, frozen):
    for p in network.parameters():
        p.requires_grad_(not frozen)


def iteration(job, step, generator, real, fake, generator_optimizer, fake_optimizer, dtype):
    draw = Draws(job["seed"], step, dtype)
    batch, pairs = job["batch"], job["pairs"]
    fresh = list(range(batch))
    joins = job["joins"] and pairs > 0
    rows = fresh + [batch + i for i in range(pairs)] if joins else fresh
    figures = dict.fromkeys(("dm", "reg", "fake", "gan", "discriminator", "accuracy"), 0.0)
    turn = step % job["every"] == 0

    # Backward simulation, then the pass that is trained.
    labels = draw.labels(draw.integer(LABEL, fresh, CONFIG.label_dim))
    t_G = [torch.full((batch,), t, dtype=dtype) for t in job["t_G"]]
    n = 0 if len(t_G) == 1 else draw.integer(STUDENT_STEP, [0], len(t_G)).item()
    x_t = at(t_G[0], draw.normal(Z, fresh))
    with torch.no_grad():
        for j in range(n):
            x_t = generator(x_t, t_G[j], labels) + at(t_G[j + 1], draw.normal(BACKWARD_NOISE, [j * batch + i for i in fresh]))
    with torch.set_grad_enabled(turn):
        x = generator(x_t, t_G[n], labels)
        if pairs:
            pair_z = draw.normal(PAIR_NOISE, range(pairs))
            pair_y = 0.5 * draw.normal(PAIR_NOISE, range(pairs, 2 * pairs))
            pair_labels = draw.labels(torch.arange(pairs) % CONFIG.label_dim)
            x_ref = generator(at(t_G[0][:1].expand(pairs), pair_z), t_G[0][:1].expand(pairs), pair_labels)
            if joins:
                x, labels = torch.cat([x, x_ref]), torch.cat([labels, pair_labels])

    if turn:
        t = draw.sigma(SCORE_SIGMA, rows, job["score"])
        with torch.no_grad():
            x_t = x + at(t, draw.normal(SCORE_NOISE, rows))
            mu_real, mu_fake = real(x_t, t, labels), fake(x_t, t, labels)
            gradient = (mu_fake - mu_real) / (x - mu_real).abs().mean(dim=(1, 2, 3), keepdim=True)
        loss_dm = 0.5 * F.mse_loss(x, (x - gradient).detach())
        loss, figures["dm"] = loss_dm, loss_dm.item()
        if pairs:
            loss_reg = F.mse_loss(x_ref, pair_y)
            loss, figures["reg"] = loss + job["lambda_reg"] * loss_reg, loss_reg.item()
        if job["gan"]:
            freeze(fake, True)
            t = draw.sigma(GAN_SIGMA, rows, job["gan_range"])
            loss_gan = F.softplus(-fake.logit(x + at(t, draw.normal(GAN_NOISE, rows)), t, labels)).mean()
            loss, figures["gan"] = loss + job["lambda_gan"] * loss_gan, loss_gan.item()
        generator_optimizer.zero_grad()
        loss.backward()
        freeze(fake, False)
        nn.utils.clip_grad_norm_(generator.parameters(), job["clip_norm"])
        generator_optimizer.step()

    x = x.detach()
    t = draw.sigma(FAKE_SIGMA, rows, job["score"])
    weight = 1 / t.square() + 1 / CONFIG.sigma_data ** 2
    loss = (at(weight, (fake(x + at(t, draw.normal(FAKE_NOISE, rows)), t, labels) - x).square())).mean()
    figures["fake"] = loss.item()
    if job["gan"]:
        real_rows = [len(rows) + i for i in fresh]
        y = 0.5 * draw.normal(TRAIN_NOISE, fresh)
        real_labels = draw.labels(torch.tensor([2 - i % CONFIG.label_dim for i in fresh]))
        t = draw.sigma(DISCRIMINATOR_SIGMA, rows, job["gan_range"])
        t_real = draw.sigma(DISCRIMINATOR_SIGMA, real_rows, job["gan_range"])
        logit = fake.logit(x + at(t, draw.normal(DISCRIMINATOR_NOISE, rows)), t, labels)
        logit_real = fake.logit(y + at(t_real, draw.normal(DISCRIMINATOR_NOISE, real_rows)), t_real, real_labels)
        loss_discriminator = F.softplus(logit).mean() + F.softplus(-logit_real).mean()
        figures["discriminator"] = loss_discriminator.item()
        figures["accuracy"] = torch.cat([logit < 0, logit_real > 0]).double().mean().item()
        loss = loss + job["lambda_discriminator"] * loss_discriminator
    fake_optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(fake.parameters(), job["clip_norm"])
    fake_optimizer.step()
    return list(figures.values())


def flat(network):
    named = sorted(network.named_parameters())
    return torch.cat([p.detach().flatten() for _, p in named])


def run(job, dtype):
    generator = fill(Network(False), GENERATOR_SEED).to(dtype)
    real = fill(Network(False), REAL_SEED).to(dtype)
    fake = fill(Network(job["gan"]), FAKE_SEED).to(dtype)
    optimizers = [torch.optim.AdamW(network.parameters(), lr=job["learning_rate"], betas=(0.0, job["beta2"]), eps=job["epsilon"],
                                    weight_decay=0.0) for network in (generator, fake)]
    losses = [iteration(job, step, generator, real, fake, *optimizers, dtype) for step in range(STEPS)]
    return {"losses": torch.tensor(losses, dtype=dtype), "generator": flat(generator), "fake": flat(fake)}


def main():
    default_out = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "dmd2_steps.safetensors"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=default_out)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    tensors, cases = {}, {}
    for name, options in CASES.items():
        cases[name] = {**copy.deepcopy(COMMON), **options}
        single, double = run(cases[name], torch.float32), run(cases[name], torch.float64)
        for key in single:
            error = ((single[key] - double[key]).norm() / double[key].norm()).item()
            print(f"{name}.{key} {list(single[key].shape)}: fp32 from fp64: {error:.1e}")
            tensors[f"{name}.{key}"] = single[key].float().contiguous()
        print(double["losses"].numpy().round(4))
    metadata = {"versions": versions_json("torch"), "config": CONFIG.to_json(), "cases": json.dumps(cases)}
    safetensors.torch.save_file(tensors, out, metadata)
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
