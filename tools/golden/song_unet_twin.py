"""PyTorch twin of Onestep's song_unet: DDPM++ and NCSN++ of the EDM code release, under its four preconditioners.

Written from the description of the architecture, independently of the C++ class, with the published names of all
parameters and buffers. Everything is spelled out with PyTorch's plain operations.

Shapes: images [B, C, H, W] f32, sigma [B] f32, labels one-hot [B, L] f32.
"""
import dataclasses
import json
import math

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class SongUnetConfig:
    """Options of the network and its preconditioner; the defaults are the published CIFAR-10 DDPM++."""

    preconditioner: str = "edm"  # edm, vp, ve, iddpm
    image_size: int = 32
    image_channels: int = 3
    pixel_unshuffle: int = 1
    model_channels: int = 128
    channel_mult: tuple = (2, 2, 2)
    channel_mult_emb: int = 4
    num_blocks: int = 4
    attention_resolutions: tuple = (16,)
    label_dim: int = 10
    sigma_data: float = 0.5
    dropout: float = 0.0  # recorded only
    embedding_type: str = "positional"  # or "fourier"
    channel_mult_noise: int = 1
    encoder_type: str = "standard"  # or "residual"
    resample_filter: tuple = (1, 1)
    augment_dim: int = 9

    @staticmethod
    def from_dict(options):
        options = dict(options)
        if options.pop("class", None) != "song_unet":
            raise ValueError("network.class: expected song_unet")
        return SongUnetConfig(**options)

    def to_json(self):
        return json.dumps({"class": "song_unet", **dataclasses.asdict(self)}, sort_keys=True)


class Conv(nn.Module):
    """Convolution with depthwise resampling: before it, or behind it when `fused` (down only). kernel 0: resampling alone."""

    def __init__(self, inputs, outputs, kernel, mode=None, taps=(1, 1), fused=False):
        super().__init__()
        self.mode, self.fused, self.kernel = mode, fused, kernel
        if kernel:
            self.weight = nn.Parameter(torch.zeros(outputs, inputs, kernel, kernel))
            self.bias = nn.Parameter(torch.zeros(outputs))
        if mode:
            f = torch.tensor(taps, dtype=torch.float32)
            self.register_buffer("resample_filter", (torch.outer(f, f) / f.sum() ** 2)[None, None])

    def forward(self, x):
        pad = self.kernel // 2
        if self.mode:
            filter_pad = (self.resample_filter.shape[-1] - 1) // 2
            if self.mode == "down" and self.fused:
                y = F.conv2d(x, self.weight, padding=pad + filter_pad)
                taps = self.resample_filter.repeat(y.shape[1], 1, 1, 1)
                y = F.conv2d(y, taps, stride=2, groups=y.shape[1])
                return y + self.bias[None, :, None, None]
            taps = self.resample_filter.repeat(x.shape[1], 1, 1, 1)
            if self.mode == "up":
                x = F.conv_transpose2d(x, taps * 4, stride=2, padding=filter_pad, groups=x.shape[1])
            else:
                x = F.conv2d(x, taps, stride=2, padding=filter_pad, groups=x.shape[1])
        return F.conv2d(x, self.weight, self.bias, padding=pad) if self.kernel else x


def group_norm(channels):
    return nn.GroupNorm(min(32, channels // 4), channels, eps=1e-6)


class Block(nn.Module):
    def __init__(self, config, inputs, outputs, mode=None, attention=False):
        super().__init__()
        taps = config.resample_filter
        self.inputs = inputs
        self.norm0 = group_norm(inputs)
        self.conv0 = Conv(inputs, outputs, 3, mode, taps)
        self.affine = nn.Linear(config.model_channels * config.channel_mult_emb, outputs)
        self.norm1 = group_norm(outputs)
        self.conv1 = Conv(outputs, outputs, 3)
        self.skip = Conv(inputs, outputs, 1, mode, taps) if mode or inputs != outputs else None
        self.attention = attention
        if attention:
            self.norm2 = group_norm(outputs)
            self.qkv = Conv(outputs, 3 * outputs, 1)
            self.proj = Conv(outputs, outputs, 1)

    def forward(self, x, emb):
        y = self.conv0(F.silu(self.norm0(x)))
        y = F.silu(self.norm1(y + self.affine(emb)[:, :, None, None]))
        y = self.conv1(y)
        x = (y + (x if self.skip is None else self.skip(x))) * math.sqrt(0.5)
        if self.attention:
            b, c, h, w = x.shape
            q, k, v = self.qkv(self.norm2(x)).reshape(b, c, 3, h * w).unbind(2)  # [channel][q, k, v]
            weights = torch.einsum("ncq,nck->nqk", q, k / math.sqrt(c)).softmax(dim=2)
            mixed = torch.einsum("nqk,nck->ncq", weights, v).reshape(b, c, h, w)
            x = (self.proj(mixed) + x) * math.sqrt(0.5)
        return x


class Fourier(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.register_buffer("freqs", torch.zeros(channels // 2))

    def forward(self, c_noise):
        angles = torch.outer(c_noise, 2 * math.pi * self.freqs)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class SongUnet(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        width, size = config.model_channels, config.image_size
        noise, emb = width * config.channel_mult_noise, width * config.channel_mult_emb
        self.noise_channels = noise
        if config.embedding_type == "fourier":
            self.map_noise = Fourier(noise)
        self.map_label = nn.Linear(config.label_dim, noise) if config.label_dim else None
        self.map_augment = nn.Linear(config.augment_dim, noise, bias=False) if config.augment_dim else None
        self.map_layer0 = nn.Linear(noise, emb)
        self.map_layer1 = nn.Linear(emb, emb)
        outputs = config.image_channels * (2 if config.preconditioner == "iddpm" else 1)

        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        skips, channels, image = [], width, config.image_channels
        for level, mult in enumerate(config.channel_mult):
            r = size >> level
            if level == 0:
                self.enc[f"{r}x{r}_conv"] = Conv(image, channels, 3)
            else:
                self.enc[f"{r}x{r}_down"] = Block(config, channels, channels, "down")
                if config.encoder_type == "residual":
                    self.enc[f"{r}x{r}_aux_residual"] = Conv(image, channels, 3, "down", config.resample_filter, True)
                    image = channels
            skips.append(channels)
            for i in range(config.num_blocks):
                self.enc[f"{r}x{r}_block{i}"] = Block(config, channels, width * mult, None,
                                                      r in config.attention_resolutions)
                channels = width * mult
                skips.append(channels)
        for level, mult in reversed(list(enumerate(config.channel_mult))):
            r = size >> level
            if level == len(config.channel_mult) - 1:
                self.dec[f"{r}x{r}_in0"] = Block(config, channels, channels, None, True)
                self.dec[f"{r}x{r}_in1"] = Block(config, channels, channels)
            else:
                self.dec[f"{r}x{r}_up"] = Block(config, channels, channels, "up")
            for i in range(config.num_blocks + 1):
                attention = i == config.num_blocks and r in config.attention_resolutions
                self.dec[f"{r}x{r}_block{i}"] = Block(config, channels + skips.pop(), width * mult, None, attention)
                channels = width * mult
        self.dec[f"{size}x{size}_aux_norm"] = group_norm(channels)
        self.dec[f"{size}x{size}_aux_conv"] = Conv(channels, outputs, 3)

    def forward(self, x, c_noise, labels):
        if self.config.embedding_type == "fourier":
            emb = self.map_noise(c_noise)
        else:
            half = self.noise_channels // 2
            freqs = (1 / 10000) ** (torch.arange(half, dtype=torch.float64, device=c_noise.device) / (half - 1))
            angles = torch.outer(c_noise, freqs.to(c_noise.dtype))
            emb = torch.cat([angles.sin(), angles.cos()], dim=1)
        emb = emb.to(x.dtype)
        if self.map_label is not None:
            emb = emb + self.map_label(labels * math.sqrt(self.config.label_dim))
        emb = F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))
        skips, image = [], x
        for name, layer in self.enc.items():
            if name.endswith("_aux_residual"):
                x = skips[-1] = image = (x + layer(image)) / math.sqrt(2)
            else:
                x = layer(x, emb) if isinstance(layer, Block) else layer(x)
                skips.append(x)
        for name, layer in self.dec.items():
            if name.endswith("_aux_norm"):
                x = F.silu(layer(x))
            elif name.endswith("_aux_conv"):
                x = layer(x)
            else:
                if x.shape[1] != layer.inputs:
                    x = torch.cat([x, skips.pop()], dim=1)
                x = layer(x, emb)
        return x


def iddpm_levels(steps=1000):
    """u_0 .. u_steps of the cosine schedule, fp64."""
    def alpha_bar(j):
        return math.sin(0.5 * math.pi * j / steps / (0.008 + 1)) ** 2

    u = [0.0] * (steps + 1)
    for j in range(steps, 0, -1):
        u[j - 1] = math.sqrt((u[j] ** 2 + 1) / max(alpha_bar(j - 1) / alpha_bar(j), 0.001) - 1)
    return torch.tensor(u, dtype=torch.float64)


class Preconditioned(nn.Module):
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), Karras et al. 2022, Table 1."""

    def __init__(self, config, network=SongUnet):
        super().__init__()
        self.config = config
        self.model = network(config)
        if config.preconditioner == "iddpm":
            self.register_buffer("u", iddpm_levels().float())

    def coefficients(self, sigma):
        kind, sd = self.config.preconditioner, self.config.sigma_data
        if kind == "edm":
            total = sigma ** 2 + sd ** 2
            return sd ** 2 / total, sigma * sd / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4
        one = torch.ones_like(sigma)
        if kind == "vp":
            time = ((0.01 + 39.8 * (1 + sigma.double() ** 2).log()).sqrt() - 0.1) / 19.9
            return one, -sigma, 1 / (sigma ** 2 + 1).sqrt(), (999 * time).to(sigma.dtype)
        if kind == "ve":
            return one, sigma, one, (sigma / 2).log()
        nearest = (self.u.to(sigma.dtype)[:, None] - sigma[None, :]).abs().argmin(0)
        return one, -sigma, 1 / (sigma ** 2 + 1).sqrt(), (999 - nearest).to(sigma.dtype)

    def forward(self, x, sigma, labels=None):
        if labels is None and self.config.label_dim:
            labels = torch.zeros(len(x), self.config.label_dim, dtype=x.dtype)
        c_skip, c_out, c_in, c_noise = self.coefficients(sigma.to(x.dtype))
        c_skip, c_out, c_in = (c[:, None, None, None] for c in (c_skip, c_out, c_in))
        f = self.model(c_in * x, c_noise, labels)[:, :x.shape[1]]
        return c_skip * x + c_out * f


PUBLISHED = {  # configuration, parameters, parameter tensors, buffers
    "cifar10-cond-vp": (SongUnetConfig(), 55_735_299, 419, 8),
    "cifar10-uncond-vp": (SongUnetConfig(label_dim=0), 55_733_891, 417, 8),
    "cifar10-cond-ve": (SongUnetConfig(channel_mult_noise=2, resample_filter=(1, 3, 3, 1), encoder_type="residual",
                                       embedding_type="fourier"), 56_400_643, 423, 11),
    "cifar10-uncond-ve": (SongUnetConfig(channel_mult_noise=2, resample_filter=(1, 3, 3, 1), encoder_type="residual",
                                         embedding_type="fourier", label_dim=0), 56_397_827, 421, 11),
    "ffhq64-vp": (SongUnetConfig(image_size=64, channel_mult=(1, 2, 2, 2), label_dim=0), 61_805_571, 541, 12),
    "ffhq64-ve": (SongUnetConfig(image_size=64, channel_mult=(1, 2, 2, 2), label_dim=0, channel_mult_noise=2,
                                 resample_filter=(1, 3, 3, 1), encoder_type="residual", embedding_type="fourier"),
                  62_761_091, 547, 16),
}

if __name__ == "__main__":
    print(f"torch {torch.__version__}")
    for name, (config, *published) in PUBLISHED.items():
        with torch.device("meta"):
            network = Preconditioned(config)
        found = [sum(p.numel() for p in network.parameters()), len(list(network.parameters())),
                 len(list(network.buffers()))]
        print(f"{name}: {found[0]:,} parameters in {found[1]} tensors, {found[2]} buffers")
        assert found == published, (found, published)
