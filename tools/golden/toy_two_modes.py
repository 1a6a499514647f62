"""The toy of the DMD paper's Fig. 3 in two dimensions: its design, in exact terms, and the seeds it was designed on.

    python tools/golden/toy_two_modes.py [--seeds 0-9]

Needs torch. The paper states the claim and not the set-up; the set-up below is our own.
Target: p = 1/2 N(m_A, s^2 I) + 1/2 N(m_B, s^2 I), m_A = (-1, 0), m_B = (2.5, 1), s = 0.3. A point is [B, 2] here and
    [B, 2, 1, 1] in C++; every mean is over the batch and the two coordinates.
Real score, exact: v = s^2 + sigma^2, r_k = softmax_k(-|x_t - m_k|^2 / (2 v)),
    mu_real = sum_k r_k (m_k + (s^2 / v) (x_t - m_k)).
Generator and fake score, each: D(x; sigma) = c_skip x + c_out F(c_in x, ln(sigma) / 4), EDM preconditioning with
    sigma_data = 2; F = linear 3-64, SiLU, linear 64-64, SiLU, linear 64-2, its input (x1, x2, ln(sigma) / 4).
    Weights N(0, 1 / fan_in), those of the last layer times 0.1; biases 0. Drawn independently for both.
    G(z) = D(20 z; 20), z ~ N(0, I): at the start a small blob at the origin, 1.0 from m_A and 2.7 from m_B.
Pairs: 500 noises z, y = 18 Heun steps of the exact denoiser from 20 z (sigma 20 to 0.002, rho 7, then 0).
First the fake score alone: 60 steps on samples of the standing generator (not in setting a).
Then 600 iterations: 256 fresh samples, sigma_t in 0.1 .. 0.5 uniform in sigma^(1/7), gradient
    (mu_fake - mu_real) / mean|x - mu_real| a sample, loss 0.5 MSE as Alg. 2; with pairs + 0.25 MSE(G(z_i), y_i) on 128
    pairs; then one fake step on the same samples: weight 1/sigma^2 + 1/sigma_data^2, MSE, fresh sigma of the same range.
    Adam (0, .99, eps 1e-8), 1e-3 for the generator, 5e-3 for the fake score, constant; clip norm 1; no average.
Settings: a "real score only": mu_fake = x_t (a score of zero, never trained); b "real + fake"; c "real + fake + pairs".
Judged on 2,000 fresh samples. share_A, share_B: the part within 3 s of the mode's mean. spread: root mean square over
    the coordinates of (x - mean of x), over the samples nearer to A, divided by s.
Claims: a: share_A > .95 and spread < .3 (collapsed to the nearer mode); b: share_A > .9, share_B < .05, spread in
    .6 .. 1.4 (covers one mode); c: share_A and share_B each >= .3.
"""
import argparse
import math
import time

import torch
from torch import nn

MODES = torch.tensor([[-1.0, 0.0], [2.5, 1.0]])
MODE_STD = 0.3
SIGMA_DATA = 2.0
SIGMA_GENERATOR = 20.0
SIGMA_LOW, SIGMA_HIGH, RHO = 0.1, 0.5, 7
WIDTH, BATCH, NUM_FAKE_WARMUP, NUM_ITERATIONS = 64, 256, 60, 600
NUM_PAIRS, PAIR_BATCH, LAMBDA_REG = 500, 128, 0.25
RATE_GENERATOR, RATE_FAKE, BETAS, CLIP_NORM = 1e-3, 5e-3, (0.0, 0.99), 1.0
SETTINGS = ("real score only", "real + fake", "real + fake + pairs")


def real_denoise(x, sigma):
    """mu_real: x [B, 2], sigma [B] -> [B, 2]."""
    variance = MODE_STD**2 + sigma[:, None] ** 2
    offset = x[:, None, :] - MODES
    share = torch.softmax(-(offset**2).sum(2) / (2 * variance), dim=1)[:, :, None]
    return (share * (MODES + (MODE_STD**2 / variance)[:, :, None] * offset)).sum(1)


class ToyDenoiser(nn.Module):
    def __init__(self, generator):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 2))
        for index, gain in ((0, 1.0), (2, 1.0), (4, 0.1)):
            layer = self.layers[index]
            deviation = gain / math.sqrt(layer.in_features)
            nn.init.normal_(layer.weight, std=deviation, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, x, sigma):
        s = sigma[:, None]
        total = s * s + SIGMA_DATA**2
        f = self.layers(torch.cat([x / total.sqrt(), s.log() / 4], dim=1))
        return SIGMA_DATA**2 / total * x + s * SIGMA_DATA / total.sqrt() * f


def constant(value, count):
    return torch.full((count,), value)


def heun(z, num_steps=18, sigma_min=0.002):
    low, high = sigma_min ** (1 / RHO), SIGMA_GENERATOR ** (1 / RHO)
    sigmas = [(high + i / (num_steps - 1) * (low - high)) ** RHO for i in range(num_steps)] + [0.0]
    x = z * sigmas[0]
    for here, there in zip(sigmas, sigmas[1:]):
        slope = (x - real_denoise(x, constant(here, len(x)))) / here
        moved = x + (there - here) * slope
        if there > 0:
            slope_there = (moved - real_denoise(moved, constant(there, len(x)))) / there
            moved = x + (there - here) * (slope + slope_there) / 2
        x = moved
    return x


class Toy:
    def __init__(self, seed, setting):
        self.random = torch.Generator().manual_seed(seed)
        self.has_fake, self.has_pairs = setting != SETTINGS[0], setting == SETTINGS[2]
        self.generator, self.fake = ToyDenoiser(self.random), ToyDenoiser(self.random)
        self.adam_generator = torch.optim.Adam(self.generator.parameters(), RATE_GENERATOR, BETAS)
        self.adam_fake = torch.optim.Adam(self.fake.parameters(), RATE_FAKE, BETAS)
        self.pair_noise = self.normal(NUM_PAIRS)
        self.pair_image = heun(self.pair_noise)

    def normal(self, count):
        return torch.randn(count, 2, generator=self.random)

    def sigma(self, count):
        low, high = SIGMA_LOW ** (1 / RHO), SIGMA_HIGH ** (1 / RHO)
        return (high + torch.rand(count, generator=self.random) * (low - high)) ** RHO

    def generate(self, z):
        return self.generator(SIGMA_GENERATOR * z, constant(SIGMA_GENERATOR, len(z)))

    def update(self, network, adam, loss):
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
        adam.step()

    def fake_step(self, x):
        sigma = self.sigma(len(x))
        weight = (1 / sigma**2 + 1 / SIGMA_DATA**2)[:, None]
        error = self.fake(x + sigma[:, None] * self.normal(len(x)), sigma) - x
        self.update(self.fake, self.adam_fake, (weight * error**2).mean())

    def step(self):
        x = self.generate(self.normal(BATCH))
        with torch.no_grad():
            sigma = self.sigma(BATCH)
            x_t = x + sigma[:, None] * self.normal(BATCH)
            mu_real = real_denoise(x_t, sigma)
            mu_fake = self.fake(x_t, sigma) if self.has_fake else x_t
            gradient = (mu_fake - mu_real) / (x - mu_real).abs().mean(1, keepdim=True)
        loss = 0.5 * ((x - (x - gradient).detach()) ** 2).mean()
        if self.has_pairs:
            rows = torch.randint(NUM_PAIRS, (PAIR_BATCH,), generator=self.random)
            error = self.generate(self.pair_noise[rows]) - self.pair_image[rows]
            loss = loss + LAMBDA_REG * (error**2).mean()
        self.update(self.generator, self.adam_generator, loss)
        if self.has_fake:
            self.fake_step(x.detach())

    def train(self):
        for _ in range(NUM_FAKE_WARMUP if self.has_fake else 0):
            with torch.no_grad():
                x = self.generate(self.normal(BATCH))
            self.fake_step(x)
        for _ in range(NUM_ITERATIONS):
            self.step()

    @torch.no_grad()
    def judge(self):
        """Returns (share_A, share_B, spread)."""
        x = self.generate(self.normal(2000))
        distance = torch.cdist(x, MODES)
        shares = (distance < 3 * MODE_STD).float().mean(0).tolist()
        near = x[distance.argmin(1) == 0]
        spread = ((near - near.mean(0)) ** 2).mean().sqrt().item() / MODE_STD
        return shares[0], shares[1], spread


def claim_holds(setting, share_a, share_b, spread):
    if setting == SETTINGS[0]:
        return share_a > 0.95 and spread < 0.3
    if setting == SETTINGS[1]:
        return share_a > 0.9 and share_b < 0.05 and 0.6 < spread < 1.4
    return share_a >= 0.3 and share_b >= 0.3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0-9", help="first-last")
    first, last = (int(part) for part in parser.parse_args().seeds.split("-"))
    torch.set_num_threads(1)
    for seed in range(first, last + 1):
        for setting in SETTINGS:
            begin = time.perf_counter()
            toy = Toy(seed, setting)
            toy.train()
            share_a, share_b, spread = toy.judge()
            verdict = "holds" if claim_holds(setting, share_a, share_b, spread) else "FAILS"
            print(f"seed {seed}  {setting:<20} share_A {share_a:.3f}  share_B {share_b:.3f}  spread {spread:.2f}  "
                  f"{time.perf_counter() - begin:.1f} s  {verdict}", flush=True)


if __name__ == "__main__":
    main()
