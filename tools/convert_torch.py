#!/usr/bin/env python3
"""Makes a safetensors file of a PyTorch .bin, .pth, .pt or .ckpt file, without running anything of it.

    python3 tools/convert_torch.py diffusion_pytorch_model.bin diffusion_pytorch_model.safetensors
    python3 tools/convert_torch.py v1-5-pruned.ckpt sd15.safetensors --key state_dict

Needs numpy (Debian: python3-numpy), no torch. Reads both forms of torch.save: the zip file and the legacy one. The file must hold
one dictionary of tensors (nested ones are joined with dots); --key KEY takes the dictionary under that key, --skip-others leaves out
what is no tensor (step counters and the like), which is refused otherwise. Names, shapes and bits are kept; --dtype F32 widens F16
and BF16. Exits 2 with one line when a file is refused.
"""
import argparse
import os
import sys

from safe_pickle import Refused
from torch_files import Tensor, load_torch_file, short, write_safetensors

MAX_DEPTH = 16


def flatten(value, prefix, where, skip_others, tensors, skipped, depth=0):
    if depth > MAX_DEPTH:
        raise Refused(f"{where}: {prefix}: expected at most {MAX_DEPTH} dictionaries inside each other, found more")
    for name, item in value.items():
        full = f"{prefix}{name}"
        if isinstance(item, Tensor):
            if not isinstance(name, str) or full in tensors:
                raise Refused(f"{where}: expected names of their own, found {short(full)} again")
            tensors[full] = item
        elif isinstance(item, dict):
            flatten(item, full + ".", where, skip_others, tensors, skipped, depth + 1)
        elif skip_others or name == "_metadata":
            skipped.append(full)
        else:
            raise Refused(f"{where}: {full}: expected a tensor, found {short(item)}; --skip-others leaves such values out")


def widened(tensor):
    if tensor.dtype == "F16":
        return Tensor("F32", tensor.array.astype("<f4"))
    if tensor.dtype == "BF16":
        return Tensor("F32", (tensor.array.astype("<u4") << 16).view("<f4").reshape(tensor.array.shape))
    return tensor


def convert(path, out, key=None, skip_others=False, widen=False):
    """Returns (number of tensors, skipped names, digest); raises Refused, OSError."""
    value = load_torch_file(path)
    if key is not None:
        if not isinstance(value, dict) or not isinstance(value.get(key), dict):
            found = sorted(map(str, value)) if isinstance(value, dict) else value
            raise Refused(f"{path}: {key}: expected a dictionary under this key, found {short(found)}")
        value = value[key]
    if not isinstance(value, dict):
        raise Refused(f"{path}: expected a dictionary of tensors, found {short(value)}")
    tensors, skipped = {}, []
    flatten(value, "", path, skip_others, tensors, skipped)
    if not tensors:
        raise Refused(f"{path}: expected tensors, found none; keys: {short(sorted(map(str, value)))}")
    if os.path.exists(out):
        raise Refused(f"{out}: expected no file of this name, found one; nothing is overwritten")
    if widen:
        tensors = {name: widened(tensor) for name, tensor in tensors.items()}
    return len(tensors), skipped, write_safetensors(out, tensors)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help=".bin, .pth, .pt or .ckpt")
    parser.add_argument("out", help="safetensors file to write")
    parser.add_argument("--key", help="the dictionary under this key, e.g. state_dict")
    parser.add_argument("--skip-others", action="store_true", help="leave out what is no tensor")
    parser.add_argument("--dtype", choices=["F32"], help="widen F16 and BF16")
    arguments = parser.parse_args()
    try:
        count, skipped, digest = convert(arguments.file, arguments.out, arguments.key, arguments.skip_others,
                                         arguments.dtype == "F32")
    except (Refused, OSError) as error:
        print(f"convert_torch.py: {error}", file=sys.stderr)
        sys.exit(2)
    except RecursionError:
        print(f"convert_torch.py: {arguments.file}: expected values of some depth, found more", file=sys.stderr)
        sys.exit(2)
    note = f"; left out: {', '.join(skipped)}" if skipped else ""
    print(f"{arguments.out}: {count} tensors; sha256 {digest}{note}")


if __name__ == "__main__":
    main()
