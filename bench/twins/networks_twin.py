"""Forward and backward of a network in PyTorch, timed: the other side of bench/networks.cpp.

    python bench/twins/networks_twin.py --description FILE --seconds 5 [--memory-format channels_last]

FILE is what `onestep-bench-networks --describe NAME` prints. The networks are those of diffusers, transformers and lpips, and the twins of
tools/golden for EDM's; weights and inputs are keyed draws, the same as the other side's. Prints one JSON object: processor seconds of the best pass,
values of the output, the norm of every gradient.
"""
import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "golden"))
from keyed_fill import keyed_uniform  # noqa: E402

SEED = 1


def drawn(name, shape, bound=math.sqrt(3)):
    return torch.from_numpy(keyed_uniform(name, tuple(shape), SEED, bound))


def bound_of(name, tensor):
    if tensor.dim() == 1:
        return 0.5 if name.endswith("weight") else 0.1
    return math.sqrt(3 * tensor.shape[0] / tensor.numel())


def fill(network, named=lambda name: name):
    with torch.no_grad():
        for name, p in network.named_parameters():
            name = named(name)
            p.copy_(drawn(name, p.shape, bound_of(name, p)))
            if p.dim() == 1 and name.endswith("weight"):
                p.add_(1)
        for name, b in network.named_buffers():
            if name.endswith("freqs"):
                b.copy_(drawn(name, b.shape, 16.0))
    return network


def edm(description, memory_format):
    config = description["config"]
    if description["class"] == "adm_unet":
        from adm_unet_twin import AdmUnetConfig, EdmPrecond
        network = EdmPrecond(AdmUnetConfig.from_dict(config))
    else:
        from song_unet_twin import Preconditioned, SongUnetConfig
        network = Preconditioned(SongUnetConfig.from_dict(config))
    batch, side = description["batch"], network.config.image_size
    inputs = {"x": drawn("input.x", (batch, network.config.image_channels, side, side))}
    labels = torch.nn.functional.one_hot(torch.arange(batch) % config["label_dim"], config["label_dim"]).float()
    return fill(network), inputs, lambda n, i: n(i["x"], torch.full((batch,), 1.5), labels)


def unet(description, memory_format):
    from diffusers import UNet2DConditionModel
    network = UNet2DConditionModel.from_config(description["config"])
    side, batch = description["side"], description["batch"]
    inputs = {"x": drawn("input.x", (batch, 4, side, side)), "text": drawn("input.text", (batch, 77, network.config.cross_attention_dim))}
    return fill(network), inputs, lambda n, i: n(i["x"], torch.full((batch,), 421), i["text"]).sample


def autoencoder(description, memory_format):
    from diffusers import AutoencoderKL
    network = fill(AutoencoderKL.from_config(description["config"]))
    if description["class"].endswith("decoder"):
        return network, {"z": drawn("input.z", (1, 4, 8, 8))}, lambda n, i: n.decode(i["z"]).sample

    def encode(n, i):
        posterior = n.encode(i["images"]).latent_dist
        return torch.cat([posterior.mean, posterior.logvar], 1)
    return network, {"images": drawn("input.images", (1, 3, 64, 64))}, encode


def tiny(description, memory_format):
    from diffusers import AutoencoderTiny
    network = fill(AutoencoderTiny.from_config(description["config"]))
    return network, {"z": drawn("input.z", (2, 4, 8, 8))}, lambda n, i: n.decode(i["z"]).sample


def clip(description, memory_format):
    from transformers import CLIPTextConfig, CLIPTextModel
    network = fill(CLIPTextModel(CLIPTextConfig(**description["config"])), published_name)
    ids = ((torch.arange(77) * 13) % description["config"]["vocab_size"]).view(1, 77)
    return network, {}, lambda n, i: n(ids)[0]


def published_name(name):
    return name if name.startswith("text_model.") else f"text_model.{name}"


def lpips(description, memory_format):
    import lpips as package
    from make_lpips_golden import published_name as lpips_name
    network = package.LPIPS(net="vgg", pnet_rand=True, pretrained=False, verbose=False)
    state = {}
    for name, value in network.state_dict().items():
        key = lpips_name(name)
        if name.startswith("scaling_layer"):
            state[name] = value
        elif key.startswith("lin"):
            state[name] = drawn(key, value.shape, 0.5) + 0.5
        else:
            state[name] = drawn(key, value.shape, bound_of(key, value))
    network.load_state_dict(state)
    network.requires_grad_(False)
    y = drawn("input.y", (2, 3, 64, 64), 0.9).contiguous(memory_format=memory_format)
    return network, {"x": drawn("input.x", (2, 3, 64, 64), 0.9)}, lambda n, i: n(i["x"], y).flatten()


CLASSES = {"song_unet": edm, "adm_unet": edm, "sd_unet": unet, "autoencoder_kl, encoder": autoencoder, "autoencoder_kl, decoder": autoencoder,
           "tiny_autoencoder": tiny, "clip_text": clip, "vgg_lpips": lpips}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--description", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--memory-format", choices=("contiguous", "channels_last"), default="contiguous")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    memory_format = torch.channels_last if arguments.memory_format == "channels_last" else torch.contiguous_format
    description = json.loads(arguments.description.read_text())
    network, inputs, run = CLASSES[description["class"]](description, memory_format)
    network.eval().to(memory_format=memory_format)
    leaves = {name: (x.contiguous(memory_format=memory_format) if x.dim() == 4 else x).requires_grad_() for name, x in inputs.items()}
    named = published_name if description["class"] == "clip_text" else lambda name: name

    output = run(network, leaves)
    probe = drawn("probe", output.shape)
    (output * probe).sum().backward()
    gradients = {named(name): p.grad for name, p in network.named_parameters()} | {f"input.{name}": x.grad for name, x in leaves.items()}
    norms = {name: g.double().norm().item() for name, g in gradients.items() if g is not None}
    best, passes, begin = math.inf, 0, time.process_time()
    while passes < 3 or time.process_time() - begin < arguments.seconds:
        for tensor in (*network.parameters(), *leaves.values()):
            tensor.grad = None
        start = time.process_time()
        (run(network, leaves) * probe).sum().backward()
        best = min(best, time.process_time() - start)
        passes += 1
    flat = output.detach().contiguous().flatten()
    print(json.dumps({"seconds": best, "passes": passes, "output": flat[::max(1, flat.numel() // 1000)].tolist(), "gradient_norms": norms}))


if __name__ == "__main__":
    main()
