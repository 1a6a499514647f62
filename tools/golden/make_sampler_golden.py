"""Writes tests/golden/heun_sampler.json: the Heun schedule of 18 steps and trajectories of a denoiser in closed form.

    python3 tools/golden/make_sampler_golden.py [--out FILE]

Needs Python alone: its floats are fp64. Karras et al. 2022, Algorithm 1, with no churn: sigma_i for i < 18 from 80 to
0.002 at rho 7, then 0; an Euler step, then Heun's correction except on the step to 0. The denoiser is
D(x; sigma) = 0.3 x / (1 + sigma^2) + 0.1, one number at a time. `start` is the unit normal draw z; x_0 = 80 z.
"""
import argparse
import json
import pathlib
import platform

from versions import versions

NUM_STEPS, SIGMA_MIN, SIGMA_MAX, RHO = 18, 0.002, 80.0, 7
STARTS = (-1.7, -0.2, 0.4, 2.1)
PUBLISHED = (80, 57.585985, 40.785574, 28.374585, 19.352453, 12.910082, 8.400935, 5.315195, 3.256822, 1.92334,
             1.088171, .585348, .296442, .139516, .059947, .022935, .007528, .002)


def schedule():
    low, high = SIGMA_MIN ** (1 / RHO), SIGMA_MAX ** (1 / RHO)
    sigmas = [(high + i / (NUM_STEPS - 1) * (low - high)) ** RHO for i in range(NUM_STEPS)]
    for found, published in zip(sigmas, PUBLISHED):
        if abs(found - published) > 1e-6:
            raise RuntimeError(f"sigma: expected {published}, found {found}")
    return sigmas + [0.0]


def denoise(x, sigma):
    return 0.3 * x / (1 + sigma * sigma) + 0.1


def heun(z, sigmas):
    """Returns the state after every step, the scaled start first."""
    states = [z * sigmas[0]]
    for here, there in zip(sigmas, sigmas[1:]):
        x = states[-1]
        slope = (x - denoise(x, here)) / here
        moved = x + (there - here) * slope
        if there > 0:
            slope_there = (moved - denoise(moved, there)) / there
            moved = x + (there - here) * (slope + slope_there) / 2
        states.append(moved)
    return states


def main():
    default_out = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "heun_sampler.json"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=default_out)
    out = parser.parse_args().out
    sigmas = schedule()
    trajectories = [{"start": z, "states": heun(z, sigmas), "end": heun(z, sigmas)[-1]} for z in STARTS]
    golden = {"versions": versions(), "denoiser": "0.3 x / (1 + sigma^2) + 0.1", "num_steps": NUM_STEPS, "sigma_min": SIGMA_MIN,
              "sigma_max": SIGMA_MAX, "rho": RHO, "sigmas": sigmas, "trajectories": trajectories}
    out.write_text(json.dumps(golden, indent=1) + "\n")
    print(f"Python {platform.python_version()}; {out}: ends {[round(t['end'], 6) for t in trajectories]}")


if __name__ == "__main__":
    main()
