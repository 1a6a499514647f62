"""Weights and pictures that golden recipes and C++ tests of the feature networks make alike (tests/support/keyed_feature_nets.h)."""
import math

import numpy as np

from keyed_fill import keyed_uniform

SEED = 5


def keyed_weight(name, shape):
    """Values that keep activations of order 1: He's bound for convolutions, norms near the identity, linear layers of LPIPS in (0, 1)."""
    if name.endswith("running_var"):
        return 1 + keyed_uniform(name, shape, SEED, 0.5)
    if name.startswith("lin"):
        return np.float32(0.5) + keyed_uniform(name, shape, SEED, 0.5)
    if len(shape) == 4:
        return keyed_uniform(name, shape, SEED, math.sqrt(6.0 / math.prod(shape[1:])))
    if name.endswith("bn.weight"):
        return 1 + keyed_uniform(name, shape, SEED, 0.25)
    return keyed_uniform(name, shape, SEED, 0.1)


def test_picture(height, width, channels=3):
    """[channels, height, width] uint8 in whole-number arithmetic: slow waves, fast ones and hard edges."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    planes = [((3 * x * x + 5 * y * y + x * y * (c + 1) + 11 * c * x) >> 6) & 255 for c in range(channels)]
    return np.stack(planes).astype(np.uint8)
