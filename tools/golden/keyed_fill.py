"""NumPy twin of the keyed draws that fill parameters: a value is a function of (seed, tensor's name, element), nothing else.

Philox4x32-10 (Salmon et al. 2011) of the counter (element // 4, sample, step, stream << 16 | sample >> 32) under the key
(seed, seed >> 32); for parameters `sample` is the low 48 bits of XXH3-128 of the name and the stream is 2. Run as a
program it writes tests/golden/keyed_fill.json, which the C++ test compares with its own draws.
"""
import argparse
import json
import pathlib

import numpy as np
import xxhash

STREAM_INIT, STREAM_SAMPLER_NOISE = 2, 15
MASK32 = np.uint64(0xFFFFFFFF)


def keyed_words(seed, stream, step, sample, num_blocks):
    """[num_blocks, 4] uint32: the words of blocks 0 .. num_blocks - 1."""
    shift = np.uint64(32)
    x0 = np.arange(num_blocks, dtype=np.uint64)
    x1 = np.full(num_blocks, sample & 0xFFFFFFFF, np.uint64)
    x2 = np.full(num_blocks, step, np.uint64)
    x3 = np.full(num_blocks, (stream << 16) | ((sample >> 32) & 0xFFFF), np.uint64)
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * x0, np.uint64(0xCD9E8D57) * x2
        x0, x1, x2, x3 = ((p1 >> shift) ^ x1 ^ np.uint64(k0), p1 & MASK32, (p0 >> shift) ^ x3 ^ np.uint64(k1), p0 & MASK32)
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([x0, x1, x2, x3], axis=1).astype(np.uint32)


def unit_uniform(words):
    """((word >> 9) + 0.5) / 2^23, exact in fp32, within (0, 1)."""
    return ((words >> np.uint32(9)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0 ** -23)


def keyed_uniform(name, shape, seed, bound):
    """fp32 array of `shape`, uniform in (-bound, bound): the bits of C++'s fill_keyed_uniform."""
    count = int(np.prod(shape, dtype=np.int64))
    sample = xxhash.xxh3_128_intdigest(name.encode()) & 0xFFFFFFFFFFFF
    out = np.empty(count, np.float32)
    scale = np.float32(2 * bound)
    words = keyed_words(seed, STREAM_INIT, 0, sample, (count + 3) // 4)
    out[:] = scale * (unit_uniform(words.reshape(-1)[:count]) - np.float32(0.5))
    return out.reshape(shape)


def keyed_normal(seed, stream, step, sample, count):
    """fp64 array of `count` standard normals by Box and Muller: C++'s fp32 keyed_normal up to its rounding."""
    u = unit_uniform(keyed_words(seed, stream, step, sample, (count + 3) // 4)).astype(np.float64)
    pairs = []
    for radius, angle in ((u[:, 0], u[:, 1]), (u[:, 2], u[:, 3])):
        length = np.sqrt(-2 * np.log(radius))
        pairs += [length * np.cos(2 * np.pi * angle), length * np.sin(2 * np.pi * angle)]
    return np.stack(pairs, axis=1).reshape(-1)[:count]


def main():
    default_out = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "keyed_fill.json"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=default_out)
    out = parser.parse_args().out
    cases = []
    for name, shape, seed, bound in (("model.map_layer0.weight", (3, 5), 1, 0.25), ("x", (7,), 2 ** 40 + 3, 1.5)):
        cases.append({"name": name, "shape": shape, "seed": seed, "bound": bound,
                      "values": [float(v) for v in keyed_uniform(name, shape, seed, bound).reshape(-1)]})
    normals = [{"seed": 5, "stream": STREAM_SAMPLER_NOISE, "step": 3, "sample": 2 ** 33 + 1,
                "values": [float(v) for v in keyed_normal(5, STREAM_SAMPLER_NOISE, 3, 2 ** 33 + 1, 10)]}]
    out.write_text(json.dumps({"uniform": cases, "normal": normals}, indent=1) + "\n")
    print(f"numpy {np.__version__}, xxhash {xxhash.VERSION}; {out}")


if __name__ == "__main__":
    main()
