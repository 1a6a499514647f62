"""Writes tests/golden/lpips.safetensors: distances and gradients of the lpips and piq packages on keyed weights.

    python tools/golden/make_lpips_golden.py [--out FILE]

Needs torch, torchvision, lpips, piq, safetensors, xxhash; no weights are downloaded. Tensors:
    x, y [2,3,32,32] in [-1,1]     weight [2]: of each distance in the sum that is differentiated
    <case>.distance [2]            <case>.grad_x [2,3,32,32]
    x_224, y_224 [1,3,32,32]       lpips_224.distance [1]      lpips_224.grad_x [1,3,32,32]
Cases: `lpips` by lpips.LPIPS(net="vgg") as the pictures are; `piq_64` and `piq_224` (its distance alone) by piq.LPIPS on [0,1] after
bilinear scaling to that side; `piq_average` by piq.LPIPS(replace_pooling=True), as the pictures are. `lpips_224`: the lpips package after bilinear scaling to 224, the side that DMD
takes. Its 13 million ReLUs leave no picture that fp32 and fp64 decide wholly alike: the nearest of some is kept, and how near, under
`lpips_224` in the metadata.
"""
import argparse
import importlib.metadata
import pathlib

import numpy as np
import safetensors.torch
import torch

from keyed_feature_nets import SEED, keyed_weight
from keyed_fill import keyed_uniform
from versions import versions_json

TRUNK = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def published_name(name):
    """torchvision's name for one of the lpips package's state_dict."""
    if name.startswith("net.slice"):
        return "features." + name.split(".", 2)[2]
    if name.startswith("lins."):
        return "lin" + name.split(".", 1)[1]
    return name


def keyed(name, shape):
    return torch.from_numpy(np.ascontiguousarray(keyed_weight(name, tuple(shape))))


def lpips_network():
    import lpips
    network = lpips.LPIPS(net="vgg", pnet_rand=True, pretrained=False, verbose=False).eval()
    state = {name: value if name.startswith("scaling_layer") else keyed(published_name(name), value.shape)
             for name, value in network.state_dict().items()}
    network.load_state_dict(state)
    return network


def piq_network(average):
    import piq
    import torchvision
    lin = [keyed(f"lin{i}.model.1.weight", (1, c, 1, 1)) for i, c in enumerate((64, 128, 256, 512, 512))]
    vgg = torchvision.models.vgg16(weights=None)
    with torch.no_grad():
        for index in TRUNK:
            for part in ("weight", "bias"):
                parameter = getattr(vgg.features[index], part)
                parameter.copy_(keyed(f"features.{index}.{part}", parameter.shape))
    import piq.perceptual
    saved = torch.hub.load_state_dict_from_url, piq.perceptual.vgg16
    torch.hub.load_state_dict_from_url = lambda *_, **__: lin
    piq.perceptual.vgg16 = lambda *_, **__: vgg
    try:
        return piq.LPIPS(replace_pooling=average, reduction="none")
    finally:
        torch.hub.load_state_dict_from_url, piq.perceptual.vgg16 = saved


def main():
    default_out = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "lpips.safetensors"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=default_out)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in
                    ("torch", "torchvision", "lpips", "piq", "safetensors", "xxhash")))
    plain, piq_max, piq_average = lpips_network(), piq_network(False), piq_network(True)

    def up(image, side):
        return torch.nn.functional.interpolate(image, size=(side, side), mode="bilinear", align_corners=False)
    cases = {"lpips": lambda a, b: plain(a, b).flatten(),
             "piq_64": lambda a, b: piq_max(up(a / 2 + 0.5, 64), up(b / 2 + 0.5, 64)).flatten(),
             "piq_average": lambda a, b: piq_average(a / 2 + 0.5, b / 2 + 0.5).flatten()}
    networks = (plain, piq_max.model, piq_average.model)
    weight = torch.tensor([1.0, -0.5])

    def gradient(distance, x, y, dtype, weight=weight):
        for network in networks:
            network.to(dtype)
        leaf = x.clone().to(dtype).requires_grad_()
        value = distance(leaf, y.to(dtype))
        (value * weight.to(dtype)).sum().backward()
        return value.detach(), leaf.grad

    # A maximum or a ReLU that rounding decides otherwise moves the gradient by much more than rounding: pictures are taken for
    # which fp32 and fp64 decide alike.
    for attempt in range(100):
        x, y = (torch.from_numpy(keyed_uniform(f"lpips.{name}.{attempt}", (2, 3, 32, 32), SEED, 0.9)) for name in "xy")
        y = 0.6 * x + 0.4 * y
        results = {name: [gradient(distance, x, y, dtype) for dtype in (torch.float64, torch.float32)]
                   for name, distance in cases.items()}
        errors = {name: ((single[1] - double[1]).norm() / double[1].norm()).item() for name, (double, single) in results.items()}
        print(f"pictures {attempt}: gradients of fp32 from those of fp64: {errors}", flush=True)
        if max(errors.values()) < 1e-5:
            break
    else:
        raise RuntimeError("no such pictures found")
    tensors = {"x": x, "y": y, "weight": weight}
    for name, (_, single) in results.items():
        tensors[f"{name}.distance"], tensors[f"{name}.grad_x"] = single
        print(f"{name}: distances {single[0].tolist()}, gradient's norm {single[1].norm():.4g}")
    with torch.no_grad():
        tensors["piq_224.distance"] = piq_max(up(x / 2 + 0.5, 224), up(y / 2 + 0.5, 224)).flatten()
    best = None
    for attempt in range(10):
        x, y = (torch.from_numpy(keyed_uniform(f"lpips_224.{name}.{attempt}", (1, 3, 32, 32), SEED, 0.9)) for name in "xy")
        y = 0.6 * x + 0.4 * y
        double, single = (gradient(lambda a, b: plain(up(a, 224), up(b, 224)).flatten(), x, y, dtype, weight[:1])
                          for dtype in (torch.float64, torch.float32))
        error = ((single[1] - double[1]).norm() / double[1].norm()).item()
        print(f"224, pictures {attempt}: gradient of fp32 from that of fp64: {error:.1e}", flush=True)
        if best is None or error < best[0]:
            best = (error, x, y, single)
    error, tensors["x_224"], tensors["y_224"], (tensors["lpips_224.distance"], tensors["lpips_224.grad_x"]) = best
    safetensors.torch.save_file({key: value.contiguous() for key, value in tensors.items()}, out,
                                {"versions": versions_json("torch", "torchvision", "lpips", "piq"), "lpips_224": f"{error:.2e}"})
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
