#!/usr/bin/env python3
"""The PyTorch side of bench/gpu: the same networks, weights and algorithm in bfloat16, as fast as PyTorch makes them.

    python bench/gpu/twin.py CASE --inputs FILE --seconds 10 --budget 300

FILE is what onestep-bench-gpu wrote: weights, the inputs of the first iteration, a description. Variants are tried the fastest first (channels_last with
torch.compile and one CUDA graph, then without the compiler, then without the graph), none begun after the budget; the best one counts. Prints one JSON object.
"""
import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "golden"))
import adm_unet_twin  # noqa: E402
import song_unet_twin  # noqa: E402

EMA_HALF_LIFE_IMAGES = 500_000
VARIANTS = (("bf16, channels_last, torch.compile, CUDA graph", True, True, True), ("bf16, channels_last, CUDA graph", True, False, True),
            ("bf16, CUDA graph", False, False, True), ("bf16, eager", False, False, False))


# ---- The twins of tools/golden are written plainly; these are their quicker equals on a GPU --------------------------------------------------------

def song_conv(self, x):
    if self.mode and not self.fused and self.resample_filter.shape[-1] == 2:  # the box filter
        x = F.interpolate(x, scale_factor=2.0) if self.mode == "up" else F.avg_pool2d(x, 2)
        return F.conv2d(x, self.weight, self.bias, padding=self.kernel // 2) if self.kernel else x
    return SONG_CONV(self, x)


def song_block(self, x, emb):
    y = self.conv0(F.silu(self.norm0(x)))
    y = self.conv1(F.silu(self.norm1(y + self.affine(emb)[:, :, None, None])))
    x = (y + (x if self.skip is None else self.skip(x))) * math.sqrt(0.5)
    if self.attention:
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm2(x)).reshape(b, 1, c, 3, h * w).permute(3, 0, 1, 4, 2).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(b, c, h, w)
        x = (self.proj(mixed) + x) * math.sqrt(0.5)
    return x


def adm_attend(self, qkv):
    b, c3, h, w = qkv.shape
    q, k, v = qkv.reshape(b, self.num_heads, -1, 3, h * w).permute(3, 0, 1, 4, 2).unbind(0)
    return F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(b, c3 // 3, h, w)


SONG_CONV = song_unet_twin.Conv.forward
song_unet_twin.Conv.forward = song_conv
song_unet_twin.Block.forward = song_block
adm_unet_twin.UNetBlock.attend = adm_attend
adm_unet_twin.PointwiseConv.forward = torch.nn.Conv2d.forward


# ---- Networks ------------------------------------------------------------------------------------------------------------------------------------

class Network:
    """A preconditioned U-Net whose fp32 parameters are cast to bfloat16 at each call, as EDM's networks do."""

    def __init__(self, options, weights, device, channels_last, compiled, trained):
        if options["class"] == "song_unet":
            self.net = song_unet_twin.SongUnet(song_unet_twin.SongUnetConfig.from_dict(options))
        else:
            self.net = adm_unet_twin.AdmUnet(adm_unet_twin.AdmUnetConfig.from_dict(options))
        filters = {k: v for k, v in self.net.state_dict().items() if k.endswith("resample_filter")}
        self.net.load_state_dict(filters | {k.removeprefix("model."): v for k, v in weights.items()})
        self.net.to(device).requires_grad_(trained)
        for name, buffer in self.net.named_buffers():
            if name.endswith("resample_filter"):
                buffer.data = buffer.data.to(torch.bfloat16)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.parameters = list(self.net.parameters())
        self.names = [name for name, _ in self.net.named_parameters()]
        self.sigma_data, self.label_dim = options["sigma_data"], options["label_dim"]
        if not trained:
            self.parameters = self.cast(self.parameters)
        self.call = torch.compile(self.apply, dynamic=False) if compiled else self.apply

    def cast(self, parameters):
        return [p.to(torch.bfloat16, memory_format=self.format) if p.dim() == 4 else p.to(torch.bfloat16) for p in parameters]

    def apply(self, parameters, x, sigma, labels):
        s, sd = sigma[:, None, None, None], self.sigma_data
        total = s * s + sd * sd
        one_hot = F.one_hot(labels, self.label_dim).to(torch.bfloat16)
        y = torch.func.functional_call(self.net, dict(zip(self.names, self.cast(parameters))),
                                       ((x / total.sqrt()).to(torch.bfloat16, memory_format=self.format), sigma.log() / 4, one_hot))
        return sd * sd / total * x + s * sd / total.sqrt() * y.float()

    def __call__(self, x, sigma, labels):
        return self.call(self.parameters, x, sigma, labels)


class Lpips:
    SLICES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))

    def __init__(self, weights, resize, device, channels_last, compiled):
        half = {k: v.to(device, torch.bfloat16) for k, v in weights.items()}
        if channels_last:
            half = {k: v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v for k, v in half.items()}
        self.weights, self.lin = half, [weights[f"lin{i}.model.1.weight"].to(device) for i in range(5)]
        self.resize = resize
        self.shift = torch.tensor([-.030, -.088, -.188], device=device)[:, None, None]
        self.scale = torch.tensor([.458, .448, .450], device=device)[:, None, None]
        self.distance = torch.compile(self.apply, dynamic=False) if compiled else self.apply

    def features(self, x):
        x = F.interpolate(x, size=(self.resize, self.resize), mode="bilinear", align_corners=False)
        h, taps = ((x - self.shift) / self.scale).to(torch.bfloat16), []
        for i, layers in enumerate(self.SLICES):
            for layer in layers:
                h = F.relu(F.conv2d(h, self.weights[f"features.{layer}.weight"], self.weights[f"features.{layer}.bias"], padding=1))
            single = h.float()
            taps.append(single / (single.square().sum(1, keepdim=True).clamp_min(1e-30).sqrt() + 1e-10))
            if i < 4:
                h = F.max_pool2d(h, 2)
        return taps

    def apply(self, x, reference):
        with torch.no_grad():
            constant = self.features(reference)
        return sum(((a - b).square() * lin).sum(1).mean((1, 2)) for a, b, lin in zip(self.features(x), constant, self.lin))


# ---- One distillation iteration --------------------------------------------------------------------------------------------------------------------

class Distillation:
    def __init__(self, description, tensors, device, channels_last, compiled, captured):
        self.d = description
        weights = {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")}
        self.inputs = {k.removeprefix("input."): v.to(device) for k, v in tensors.items() if k.startswith("input.")}
        scaled = {k: v * description["fake_scale"] for k, v in weights.items()}
        make = lambda values, trained: Network(description["network"], values, device, channels_last, compiled, trained)  # noqa: E731
        self.generator, self.fake, self.real = make(weights, True), make(scaled, True), make(weights, False)
        lpips = {k.removeprefix("lpips."): v for k, v in tensors.items() if k.startswith("lpips.")}
        self.lpips = Lpips(lpips, description["lpips_resize"], device, channels_last, compiled) if lpips else None
        o = description["optimizer"]
        options = {"lr": torch.tensor(o["learning_rate"], device=device) if captured else o["learning_rate"], "betas": (o["beta1"], o["beta2"]),
                   "eps": o["epsilon"], "weight_decay": o["weight_decay"], "fused": True}
        if captured:
            options["capturable"] = True
        self.update_generator = torch.optim.AdamW(self.generator.parameters, **options)
        self.update_fake = torch.optim.AdamW(self.fake.parameters, **options)
        self.average = [p.detach().clone() for p in self.generator.parameters]
        self.figures = {}

    def draw(self):
        i = self.inputs
        for name in ("z", "score_noise", "fake_noise"):
            i[name].normal_()
        i["label"].random_(0, self.d["network"]["label_dim"])
        for name, (lo, hi) in (("score_sigma", self.d["score"]), ("fake_sigma", self.d["fake"])):
            i[name].uniform_().mul_(lo ** (1 / 7) - hi ** (1 / 7)).add_(hi ** (1 / 7)).pow_(7)

    def regression(self, x, y):
        return self.lpips.distance(x, y) if self.lpips else (x - y).square().mean((1, 2, 3))

    def step(self, optimizer, parameters):
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.d["optimizer"]["clip_norm"], foreach=True)
        optimizer.step()
        for p in parameters:
            p.grad.zero_() if p.grad is not None else None
        return norm

    def iteration(self):
        d, m = self.d, self.d["micro_batches"]
        cut = {k: v.chunk(m) for k, v in self.inputs.items()}
        dm = reg = fake = gradient_abs = 0
        kept = []
        for n in range(m):
            i = {k: v[n] for k, v in cut.items()}
            fresh = len(i["z"])
            z, labels = torch.cat([i["z"], i["pair_noise"]]), torch.cat([i["label"], i["pair_label"]])
            generated = self.generator(d["t_G"] * z, torch.full((len(z),), d["t_G"], device=z.device), labels)
            x = generated[:fresh]
            with torch.no_grad():
                x_t = x + i["score_sigma"][:, None, None, None] * i["score_noise"]
                mu_real, mu_fake = self.real(x_t, i["score_sigma"], i["label"]), self.fake(x_t, i["score_sigma"], i["label"])
                gradient = (mu_fake - mu_real) / (x - mu_real).abs().mean((1, 2, 3), keepdim=True)
                target = x - gradient
            loss_dm = 0.5 * (x - target).square().mean((1, 2, 3)).sum() / d["batch"]
            loss_reg = self.regression(generated[fresh:], i["pair_image"]).sum() / d["pairs"]
            (loss_dm + 0.25 * loss_reg).backward()
            kept.append(x.detach())
            dm, reg = dm + loss_dm.detach(), reg + loss_reg.detach()
            gradient_abs = gradient_abs + gradient.abs().mean((1, 2, 3)).sum() / d["batch"]
        norm_generator = self.step(self.update_generator, self.generator.parameters)
        torch._foreach_lerp_(self.average, [p.detach() for p in self.generator.parameters], 1 - 0.5 ** (d["batch"] / EMA_HALF_LIFE_IMAGES))
        for n in range(m):
            i = {k: v[n] for k, v in cut.items()}
            s = i["fake_sigma"]
            mu = self.fake(kept[n] + s[:, None, None, None] * i["fake_noise"], s, i["label"])
            weight = 1 / s.square() + 1 / d["network"]["sigma_data"] ** 2
            loss = (weight * (mu - kept[n]).square().mean((1, 2, 3))).sum() / d["batch"]
            loss.backward()
            fake = fake + loss.detach()
        norm_fake = self.step(self.update_fake, self.fake.parameters)
        self.figures = {"loss_dm": dm, "loss_reg": reg, "loss_fake": fake, "dm_gradient_abs": gradient_abs,
                        "gradient_norm_generator": norm_generator, "gradient_norm_fake": norm_fake}


# ---- Timing ----------------------------------------------------------------------------------------------------------------------------------------

def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def captured_call(work, warm_ups=3):
    """`work` as one CUDA graph, after warm-ups on the stream that captures it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warm_ups):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def time_call(work, seconds, device):
    for _ in range(2):
        work()
    synchronize(device)
    count, begin = 0, time.perf_counter()
    while count < 3 or time.perf_counter() - begin < seconds:
        work()
        count += 1
        if count % 8 == 0:
            synchronize(device)
    synchronize(device)
    return (time.perf_counter() - begin) / count


def best_of(variants, batch):
    best = max(variants, key=lambda v: v["images_per_second"])
    return {**best, "batch": batch, "variants": [{k: v for k, v in item.items() if k not in ("values", "first")} for item in variants]}


def run_variants(arguments, device, build, batch):
    """build(channels_last, compiled, captured) -> (work to time, what it computes first)."""
    variants, begin = [], time.perf_counter()
    for name, *choice in (VARIANTS if device.type == "cuda" else VARIANTS[-1:]):
        if variants and time.perf_counter() - begin > arguments.budget:
            break
        start = time.perf_counter()
        try:
            work, computed = build(*choice)
            start_s = time.perf_counter() - start
            each = time_call(work, arguments.seconds, device)
        except torch.OutOfMemoryError as error:
            print(f"twin: {name}: {error}", file=sys.stderr)
            continue
        variants.append({"variant": name, "images_per_second": batch / each, "ms_per_iteration": each * 1e3, "start_s": start_s, **computed})
        del work, computed
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return best_of(variants, batch)


def run_training(arguments, description, tensors, device):
    def build(channels_last, compiled, captured):
        training = Distillation(description, tensors, device, channels_last, compiled, captured)
        training.iteration()
        first = {k: v.item() for k, v in training.figures.items()}

        def work():
            training.draw()
            training.iteration()
        return captured_call(work) if captured else work, {"first": first}
    return run_variants(arguments, device, build, description["batch"])


def run_sampling(arguments, description, tensors, device):
    weights = {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")}
    z, labels, steps, top = tensors["input.z"].to(device), tensors["input.label"].to(device), description["steps"], description["sigma"]

    def heun(net):
        levels = [(80 ** (1 / 7) + i / (steps - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(steps)] + [0.0]
        x = z.double() * levels[0]

        def slope(x, sigma):
            return (x - net(x.float(), torch.full((len(x),), sigma, device=device), labels).double()) / sigma
        for sigma, following in zip(levels, levels[1:]):
            d = slope(x, sigma)
            ahead = x + (following - sigma) * d
            x = ahead if following == 0 else x + (following - sigma) * 0.5 * (d + slope(ahead, following))
        return x.float()

    def build(channels_last, compiled, captured):
        net = Network(description["network"], weights, device, channels_last, compiled, False)
        out = {}

        @torch.no_grad()
        def work():
            out["x"] = heun(net) if steps > 1 else net(top * z, torch.full((len(z),), top, device=device), labels)
        work()
        flat = out["x"].flatten()
        values = flat[::max(1, flat.numel() // 1000)].tolist()
        return captured_call(work) if captured else work, {"values": values}
    return run_variants(arguments, device, build, description["batch"])


def run_inception(arguments, description, tensors, device):
    from pytorch_fid import inception
    tensors = dict(tensors)
    images = tensors.pop("input.images").to(device)
    load = torch.nn.Module.load_state_dict
    inception.load_state_dict_from_url = lambda *_, **__: None
    torch.nn.Module.load_state_dict = lambda self, *_, **__: load(self, tensors, strict=False)
    model = inception.InceptionV3([3], resize_input=False, normalize_input=False).eval()
    torch.nn.Module.load_state_dict = load
    model = model.to(device, torch.bfloat16)

    def build(channels_last, compiled, captured):
        net = model.to(memory_format=torch.channels_last) if channels_last else model.to(memory_format=torch.contiguous_format)
        call = torch.compile(net) if compiled else net
        out = {}

        @torch.no_grad()
        def work():
            x = images.to(torch.bfloat16)
            out["x"] = call(x.contiguous(memory_format=torch.channels_last) if channels_last else x)[0].float()
        work()
        flat = out["x"].flatten()
        return captured_call(work) if captured else work, {"values": flat[::max(1, flat.numel() // 1000)].tolist()}
    return run_variants(arguments, device, build, description["batch"])


def run_optimizer(arguments, device):
    """Norm, clip, fused AdamW, one average and a bfloat16 copy of one flat tensor."""
    cases = []
    for parameters in (55_735_299, 295_899_267):
        count = (parameters // 10_000 if arguments.small else parameters) // 1024 * 1024

        def pattern(offset):
            i = torch.arange(count, device=device)
            return ((i * 2654435761 + offset) & 0xFFFFFF).float() * 2.0 ** -24 - 0.5
        p = pattern(1).requires_grad_()
        p.grad = pattern(2) * 0.01
        gradient = p.grad.clone()
        average, shadow = p.detach().clone(), torch.empty_like(p, dtype=torch.bfloat16)
        adam = torch.optim.AdamW([p], lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01, fused=True, capturable=device.type == "cuda")

        def work():
            norm = torch.nn.utils.clip_grad_norm_([p], 1.0)
            adam.step()
            average.lerp_(p.detach(), 1 - 0.999)
            shadow.copy_(p.detach())
            return norm
        norm = work().item()
        values = p.detach()[::max(1, count // 1000)].tolist()
        p.grad.copy_(gradient)
        each = time_call(captured_call(work) if device.type == "cuda" else work, arguments.seconds / 2, device)
        cases.append({"count": count, "ms": each * 1e3, "norm": norm, "values": values})
    graph = ", CUDA graph" if device.type == "cuda" else ""
    return {"variant": f"fused AdamW on one tensor, clip_grad_norm_{graph}", "cases": cases}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case")
    parser.add_argument("--inputs", required=True)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--budget", type=float, default=300)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.manual_seed(1)
    torch.backends.cudnn.benchmark = True
    if device.type == "cpu":
        torch.set_num_threads(1)
    if arguments.case == "optimizer":
        result = run_optimizer(arguments, device)
    else:
        with safe_open(arguments.inputs, framework="pt") as file:
            description, tensors = json.loads(file.metadata()["description"]), {key: file.get_tensor(key) for key in file.keys()}
        if arguments.case == "inception":
            result = run_inception(arguments, description, tensors, device)
        elif arguments.case.startswith(("sample-", "heun-")):
            result = run_sampling(arguments, description, tensors, device)
        else:
            result = run_training(arguments, description, tensors, device)
    print(json.dumps(result | {"torch": torch.__version__}))


if __name__ == "__main__":
    main()
