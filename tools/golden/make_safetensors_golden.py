#!/usr/bin/env python3
"""Writes tests/golden/safetensors_package.safetensors with the safetensors package: one tensor of every dtype that it knows, an empty
one, a scalar; and reads back tests/golden/safetensors_onestep.safetensors, which the C++ test rewrites byte for byte.

    python3 tools/golden/make_safetensors_golden.py tests/golden

Byte i of the data of tensor NAME is (i * 7 + number of letters of NAME) mod 256: the test computes the same.
"""
import ctypes
import pathlib
import sys

import safetensors
from safetensors import TensorSpec, deserialize, serialize, serialize_file

from versions import versions_json

# The package's own spelling -> bits an element.
DTYPES = {"bool": 8, "uint8": 8, "int8": 8, "float8_e5m2": 8, "float8_e4m3fn": 8, "float8_e8m0fnu": 8, "float8_e4m3fnuz": 8,
          "float8_e5m2fnuz": 8, "int16": 16, "uint16": 16, "float16": 16, "bfloat16": 16, "int32": 32, "uint32": 32, "float32": 32,
          "complex64": 64, "float64": 64, "int64": 64, "uint64": 64, "float4_e2m1fn_x2": 4}


def pattern(name, size):
    return bytes((i * 7 + len(name)) % 256 for i in range(size))


KEPT = []  # the package reads the memory behind a TensorSpec when it writes


def entry(name, dtype, shape, bits):
    count = 1
    for n in shape:
        count *= n
    data = pattern(name, count * bits // 8)
    KEPT.append(ctypes.create_string_buffer(data, max(len(data), 1)))
    return TensorSpec(dtype=dtype, shape=shape, data_ptr=ctypes.addressof(KEPT[-1]), data_len=len(data))


def main():
    folder = pathlib.Path(sys.argv[1])
    print(f"safetensors {safetensors.__version__}, Python {sys.version.split()[0]}")
    tensors, left_out = {}, []
    for dtype, bits in DTYPES.items():
        name = f"all.{dtype}"
        try:
            # Packed types count two elements a byte in their last dimension.
            candidate = entry(name, dtype, [3, 4], 8 if dtype == "float4_e2m1fn_x2" else bits)
            serialize({name: candidate})
            tensors[name] = candidate
        except Exception as error:  # a dtype that this version does not write
            left_out.append(f"{dtype} ({error})")
    tensors["empty"] = entry("empty", "float32", [0, 5], 32)
    tensors["scalar"] = entry("scalar", "float64", [], 64)
    path = folder / "safetensors_package.safetensors"
    serialize_file(tensors, str(path), {"made_by": "the safetensors package", "unicode": "é \u2028 \U0001f600",
                                         "versions": versions_json("safetensors")})
    path.chmod(0o644)
    print(f"{path}: {len(tensors)} tensors; not written by this version: {', '.join(left_out) or 'none'}")

    own = folder / "safetensors_onestep.safetensors"
    if not own.exists():
        sys.exit(f"{own}: expected the file that the C++ test SafetensorsGolden writes again, found none")
    for name, tensor in deserialize(own.read_bytes()):
        if bytes(tensor["data"]) != pattern(name, len(tensor["data"])):
            sys.exit(f"{own}: {name}: expected the pattern, found other bytes")
        print(f"{own}: {name}: {tensor['dtype']} {tensor['shape']} as written")


if __name__ == "__main__":
    main()
