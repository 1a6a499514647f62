"""PyTorch twin of Onestep's adm_unet: the ADM U-Net of the EDM code release under EDM preconditioning.

Written from the description of the architecture, independently of the C++ class, with the published names of all
tensors, so that golden files made here check names, forward and every gradient there. Two options go beyond the
published class: `pixel_unshuffle` (the network works on blocks of pixels) and `noise_frequencies`.

Shapes: images [B, C, H, W] f32, sigma [B] f32, labels one-hot [B, L] f32.
"""
import dataclasses
import json
import math

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class AdmUnetConfig:
    """Options of the network; the defaults are those of the published ImageNet-64 network."""

    image_size: int = 64
    image_channels: int = 3
    pixel_unshuffle: int = 1  # 1 = off; N folds N x N pixels into channels before the first convolution
    model_channels: int = 192
    channel_mult: tuple = (1, 2, 3, 4)
    channel_mult_emb: int = 4
    num_blocks: int = 3
    attention_resolutions: tuple = (32, 16, 8)  # measured after the unshuffle
    channels_per_head: int = 64
    label_dim: int = 1000  # 0 = no labels
    noise_frequencies: str = "published"  # or "geometric": 1 .. 100, both ends included
    sigma_data: float = 0.5
    preconditioner: str = "edm"  # or vp, ve, iddpm: song_unet_twin.Preconditioned
    dropout: float = 0.0  # recorded only

    @staticmethod
    def from_dict(options):
        """From the `network` object of an export or of a golden file; refuses keys it does not know."""
        fixed = {"class": "adm_unet"}
        for key, value in fixed.items():
            if options.get(key, value) != value:
                raise ValueError(f"network.{key}: expected {value!r}, found {options[key]!r}")
        names = {field.name for field in dataclasses.fields(AdmUnetConfig)}
        unknown = sorted(set(options) - names - set(fixed))
        if unknown:
            raise ValueError(f"network: unknown keys {unknown}")
        return AdmUnetConfig(**{k: v for k, v in options.items() if k in names})

    def to_json(self):
        options = {"class": "adm_unet", **dataclasses.asdict(self)}
        return json.dumps(options, sort_keys=True)


def group_norm(channels):
    return nn.GroupNorm(min(32, channels // 4), channels, eps=1e-5)


def reset_uniform(layer):
    """Weight and bias from U(-b, b) with b = sqrt(1/3) sqrt(3 / fan_in)."""
    bound = math.sqrt(1 / layer.weight[0].numel())
    nn.init.uniform_(layer.weight, -bound, bound)
    nn.init.uniform_(layer.bias, -bound, bound)
    return layer


def linear(inputs, outputs):
    return reset_uniform(nn.Linear(inputs, outputs))


class PointwiseConv(nn.Conv2d):
    """1 x 1 convolution as one batched product, which PyTorch runs faster on a CPU at these sizes."""

    def forward(self, x):
        b, c, h, w = x.shape
        weight = self.weight.view(1, -1, c).expand(b, -1, c)
        return torch.baddbmm(self.bias.view(1, -1, 1), weight, x.flatten(2)).view(b, -1, h, w)


def conv(inputs, outputs, kernel):
    layer = PointwiseConv if kernel == 1 else nn.Conv2d
    return reset_uniform(layer(inputs, outputs, kernel, padding=kernel // 2))


def zeroed(layer):
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Resample(nn.Module):
    """The [1, 1] box filter: 2 x 2 mean down, nearest neighbour up. Owns the published buffer, no parameter."""

    def __init__(self, mode):
        super().__init__()
        self.mode = mode
        self.register_buffer("resample_filter", torch.full((1, 1, 2, 2), 0.25))

    def forward(self, x):
        return F.avg_pool2d(x, 2) if self.mode == "down" else F.interpolate(x, scale_factor=2.0)


class ResampleConv(nn.Conv2d):
    """3 x 3 convolution behind the box filter, which shares its name: conv0.{weight,bias,resample_filter}."""

    def __init__(self, inputs, outputs, mode):
        super().__init__(inputs, outputs, 3, padding=1)
        self.mode = mode
        self.register_buffer("resample_filter", torch.full((1, 1, 2, 2), 0.25))
        reset_uniform(self)

    def forward(self, x):
        return super().forward(Resample.forward(self, x))


class UNetBlock(nn.Module):
    def __init__(self, config, inputs, outputs, mode=None, attention=False):
        super().__init__()
        emb = config.model_channels * config.channel_mult_emb
        self.outputs = outputs
        self.num_heads = outputs // config.channels_per_head if attention else 0
        self.norm0 = group_norm(inputs)
        self.conv0 = ResampleConv(inputs, outputs, mode) if mode else conv(inputs, outputs, 3)
        self.affine = linear(emb, 2 * outputs)
        self.norm1 = group_norm(outputs)
        self.conv1 = zeroed(conv(outputs, outputs, 3))
        self.skip = None
        if mode:
            assert inputs == outputs
            self.skip = Resample(mode)
        elif inputs != outputs:
            self.skip = conv(inputs, outputs, 1)
        if attention:
            assert self.num_heads * config.channels_per_head == outputs
            self.norm2 = group_norm(outputs)
            self.qkv = conv(outputs, 3 * outputs, 1)
            self.proj = zeroed(conv(outputs, outputs, 1))

    def forward(self, x, emb):
        y = self.conv0(F.silu(self.norm0(x)))
        scale, shift = self.affine(emb)[:, :, None, None].chunk(2, dim=1)
        y = self.conv1(F.silu(torch.addcmul(shift, self.norm1(y), scale + 1)))
        x = y + (x if self.skip is None else self.skip(x))
        if self.num_heads:
            x = x + self.proj(self.attend(self.qkv(self.norm2(x))))
        return x

    def attend(self, qkv):
        """qkv [B, 3C, H, W], channels laid out [head][channel][q, k, v]; returns [B, C, H, W]."""
        b, c3, h, w = qkv.shape
        channels = c3 // 3 // self.num_heads
        q, k, v = qkv.reshape(b * self.num_heads, channels, 3, h * w).unbind(2)
        weights = torch.bmm(q.transpose(1, 2), k * (1 / math.sqrt(channels))).softmax(dim=2)
        return torch.bmm(v, weights.transpose(1, 2)).reshape(b, c3 // 3, h, w)


class AdmUnet(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.model_channels
        emb = width * config.channel_mult_emb
        fold = config.pixel_unshuffle
        size = config.image_size // fold
        folded_channels = config.image_channels * fold * fold
        self.fold = fold
        half = width // 2
        if config.noise_frequencies == "published":
            frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        elif config.noise_frequencies == "geometric":
            frequencies = 100.0 ** (torch.arange(half, dtype=torch.float64) / (half - 1))
        else:
            raise ValueError(f"noise_frequencies: found {config.noise_frequencies!r}")
        self.register_buffer("frequencies", frequencies.float(), persistent=False)
        self.map_layer0 = linear(width, emb)
        self.map_layer1 = linear(emb, emb)
        self.map_label = None
        if config.label_dim:
            self.map_label = nn.Linear(config.label_dim, emb, bias=False)
            nn.init.normal_(self.map_label.weight)

        attention = set(config.attention_resolutions)
        self.enc = nn.ModuleDict()
        self.dec = nn.ModuleDict()
        skips = []
        channels = width * config.channel_mult[0]
        for level, mult in enumerate(config.channel_mult):
            name = f"{size >> level}x{size >> level}"
            if level == 0:
                self.enc[f"{name}_conv"] = conv(folded_channels, channels, 3)
            else:
                self.enc[f"{name}_down"] = UNetBlock(config, channels, channels, "down")
            skips.append(channels)
            for i in range(config.num_blocks):
                block = UNetBlock(config, channels, width * mult, None, size >> level in attention)
                self.enc[f"{name}_block{i}"] = block
                channels = width * mult
                skips.append(channels)
        for level, mult in reversed(list(enumerate(config.channel_mult))):
            name = f"{size >> level}x{size >> level}"
            if level == len(config.channel_mult) - 1:
                self.dec[f"{name}_in0"] = UNetBlock(config, channels, channels, None, True)
                self.dec[f"{name}_in1"] = UNetBlock(config, channels, channels)
            else:
                self.dec[f"{name}_up"] = UNetBlock(config, channels, channels, "up")
            for i in range(config.num_blocks + 1):
                inputs = channels + skips.pop()
                channels = width * mult
                block = UNetBlock(config, inputs, channels, None, size >> level in attention)
                self.dec[f"{name}_block{i}"] = block
        self.out_norm = group_norm(channels)
        self.out_conv = zeroed(conv(channels, folded_channels * (2 if config.preconditioner == "iddpm" else 1), 3))

    def forward(self, x, c_noise, labels):
        angles = c_noise[:, None] * self.frequencies
        emb = F.silu(self.map_layer0(torch.cat([angles.cos(), angles.sin()], dim=1).to(x.dtype)))
        emb = self.map_layer1(emb)
        if self.map_label is not None:
            emb = emb + self.map_label(labels)
        emb = F.silu(emb)
        if self.fold > 1:
            x = F.pixel_unshuffle(x, self.fold)
        skips = []
        for block in self.enc.values():
            x = block(x, emb) if isinstance(block, UNetBlock) else block(x)
            skips.append(x)
        for name, block in self.dec.items():
            if "_block" in name:
                x = torch.cat([x, skips.pop()], dim=1)
            x = block(x, emb)
        x = self.out_conv(F.silu(self.out_norm(x)))
        return F.pixel_shuffle(x, self.fold) if self.fold > 1 else x


class EdmPrecond(nn.Module):
    """D(x; sigma) = c_skip x + c_out F(c_in x; ln(sigma) / 4), Karras et al. 2022, Table 1."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.model = AdmUnet(config)

    def forward(self, x, sigma, labels=None):
        sigma = sigma.to(x.dtype)
        s = sigma[:, None, None, None]
        sd = self.config.sigma_data
        total = s * s + sd * sd
        f = self.model(x / total.sqrt(), sigma.log() / 4, labels)
        return (sd * sd / total) * x + (s * sd / total.sqrt()) * f


def fill_random(network, generator):
    """Random nonzero values for every parameter, so that no gradient is hidden by a zero initialisation."""
    with torch.no_grad():
        for name, p in network.named_parameters():
            if ".norm" in name or "out_norm" in name:
                base = 1.0 if name.endswith("weight") else 0.0
                p.copy_(base + 0.3 * torch.randn(p.shape, generator=generator))
            elif name.endswith("map_label.weight"):
                p.copy_(torch.randn(p.shape, generator=generator))
            else:
                fan_in = p[0].numel() if p.dim() > 1 else 16
                p.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(fan_in))


if __name__ == "__main__":
    with torch.device("meta"):
        published = EdmPrecond(AdmUnetConfig())
    parameters = sum(p.numel() for p in published.parameters())
    print(f"ImageNet-64: {parameters:,} parameters, {len(list(published.parameters()))} parameter tensors, "
          f"{len(published.state_dict())} tensors with buffers")
    assert parameters == 295_899_267
