"""Writes tests/golden/philox4x32_10.json: 100 input and output vectors of Philox4x32-10.

    python3 tools/golden/make_philox_golden.py [--out FILE]

Needs Python alone. The generator is written from Salmon et al. 2011 ("Parallel random numbers: as easy as 1, 2, 3"),
independently of the C++ one, and must reproduce the three vectors that the authors published before it may write.
All words are 8 hexadecimal digits; counter and output in the order of the paper, x0 first.
"""
import argparse
import hashlib
import json
import pathlib
import platform

MASK = 0xFFFFFFFF
PUBLISHED = [  # counter, key, output: the known-answer tests of Random123
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MASK,) * 4, (MASK,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


def philox4x32_10(counter, key):
    """Ten rounds: two 32 x 32 -> 64 bit products, crossed; the key steps by the Weyl constants between rounds."""
    x = list(counter)
    for round_number in range(10):
        k0 = (key[0] + round_number * 0x9E3779B9) & MASK
        k1 = (key[1] + round_number * 0xBB67AE85) & MASK
        high0, low0 = divmod(0xD2511F53 * x[0], 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * x[2], 1 << 32)
        x = [high1 ^ x[1] ^ k0, low1, high0 ^ x[3] ^ k1, low0]
    return tuple(x)


def vectors():
    for counter, key, expected in PUBLISHED:
        found = philox4x32_10(counter, key)
        if found != expected:
            raise RuntimeError(f"counter {counter}, key {key}: published {expected}, found {found}")
        yield counter, key
    for number in range(100 - len(PUBLISHED)):  # inputs that look like nothing: digests of their number
        digest = hashlib.sha256(b"philox %d" % number).digest()
        words = [int.from_bytes(digest[4 * i:4 * i + 4], "little") for i in range(6)]
        yield tuple(words[:4]), tuple(words[4:])


def main():
    default_out = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "philox4x32_10.json"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=default_out)
    out = parser.parse_args().out
    rows = []
    for counter, key in vectors():
        hexed = {"counter": counter, "key": key, "output": philox4x32_10(counter, key)}
        rows.append({name: [f"{word:08x}" for word in words] for name, words in hexed.items()})
    body = ",\n".join("  " + json.dumps(row) for row in rows)
    out.write_text('{"generator": "philox4x32_10", "vectors": [\n' + body + "\n]}\n")
    print(f"Python {platform.python_version()}; {out}: {len(rows)} vectors, the published ones included")


if __name__ == "__main__":
    main()
