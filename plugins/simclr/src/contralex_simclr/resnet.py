"""SimCLR v2's ResNets: any width, selective kernels, and ResNet-D's stem and shortcuts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from contralex.plugin import Backbone

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
_FEWEST = 32  # channels between the two 1x1 convolutions of a selective kernel


Depth = Literal[50, 101, 152, 200]
Stem = Literal["imagenet", "small"]


def sk_resnet(depth: Depth = 50, width: int = 1, sk_ratio: float = 0.0625, stem: Stem = "imagenet") -> Backbone:
    """A :class:`SKResNet` with its number of features."""
    module = SKResNet(depth, width, sk_ratio, stem)
    return Backbone(module, module.dim)


class SKResNet(nn.Module):
    """Images (B, 3, H, W) to features (B, 2048 times the width): stem, four groups of blocks, the mean over positions.

    ``depth``: layers. ``width`` multiplies the channels of every convolution. ``sk_ratio``: the channels of a selective
    kernel that choose between its branches, for each channel of a branch; 0 makes a plain ResNet. ``stem``: the first
    layers for large images (``imagenet``), or a 3x3 convolution of stride 1 (``small``).
    """

    def __init__(self, depth: Depth = 50, width: int = 1, sk_ratio: float = 0.0625, stem: Stem = "imagenet") -> None:
        super().__init__()
        channels = 64 * width
        self.stem = _stem(stem, channels, sk_ratio)
        groups = []
        before = channels
        for number, count in enumerate(_BLOCKS[depth]):
            inside = channels * 2**number
            for block in range(count):
                stride = 2 if number > 0 and block == 0 else 1
                groups.append(Bottleneck(before, inside, stride, sk_ratio))
                before = 4 * inside
        self.blocks = nn.Sequential(*groups)
        self.dim = before
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _variance_scaling(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(self.stem(images)).mean(dim=(2, 3))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, 3x3 (or a selective kernel), 1x1 to four times the channels; the last scale begins at 0.

    The first of a group projects its shortcut; with selective kernels that averages 2x2 positions first (ResNet-D).
    """

    def __init__(self, before: int, inside: int, stride: int, sk_ratio: float) -> None:
        super().__init__()
        after = 4 * inside
        self.shortcut = _shortcut(before, after, stride, averaged=sk_ratio > 0)
        middle = SelectiveKernel(inside, stride, sk_ratio) if sk_ratio > 0 else _conv(inside, inside, 3, stride)
        last = _conv(inside, after, 1, relu=False)
        nn.init.zeros_(last.get_parameter("1.weight"))  # BatchNorm's
        self.residual = nn.Sequential(_conv(before, inside, 1), middle, last)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.residual(x) + self.shortcut(x))


class SelectiveKernel(nn.Module):
    """Two 3x3 branches, mixed channel by channel: out = Σ_b softmax_b(a)·u_b, with a from the mean over positions of
    their sum (SKNet, arXiv:1903.06586, Eqs. 1 to 6). Both are 3x3 here, as in SimCLR v2, where SKNet's differ.
    """

    def __init__(self, channels: int, stride: int, ratio: float) -> None:
        super().__init__()
        between = max(int(channels * ratio), _FEWEST)
        self.branches = _conv(channels, 2 * channels, 3, stride)
        self.squeeze = _conv(channels, between, 1)
        self.excite = nn.Conv2d(between, 2 * channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        branches = self.branches(x).unflatten(1, (2, -1))  # (B, 2, C, H, W)
        mean = branches.sum(dim=1).mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
        weights = self.excite(self.squeeze(mean)).unflatten(1, (2, -1)).softmax(dim=1)  # (B, 2, C, 1, 1)
        return (branches * weights).sum(dim=1)  # type: ignore[no-any-return]


def _stem(stem: Stem, channels: int, sk_ratio: float) -> nn.Sequential:
    if stem == "small":
        return _conv(3, channels, 3)
    pool = nn.MaxPool2d(3, 2, padding=1)
    if sk_ratio == 0:
        return nn.Sequential(_conv(3, channels, 7, 2), pool)
    half = channels // 2
    return nn.Sequential(_conv(3, half, 3, 2), _conv(half, half, 3), _conv(half, channels, 3), pool)


def _shortcut(before: int, after: int, stride: int, averaged: bool) -> nn.Module:
    if before == after and stride == 1:
        return nn.Identity()
    if not averaged:
        return _conv(before, after, 1, stride, relu=False)
    # As the official code pads: a halved map of an odd size with zeros; and the first group, which halves nothing, is
    # averaged as well, with the last row and column repeated.
    pad = nn.ZeroPad2d((0, 1, 0, 1)) if stride == 2 else nn.ReplicationPad2d((0, 1, 0, 1))
    return nn.Sequential(pad, nn.AvgPool2d(2, stride), _conv(before, after, 1, relu=False))


def _conv(before: int, after: int, kernel: int, stride: int = 1, relu: bool = True) -> nn.Sequential:
    """A convolution without bias, BatchNorm, and perhaps ReLU."""
    modules: list[nn.Module] = [
        nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(after),
    ]
    return nn.Sequential(*modules, nn.ReLU(inplace=True)) if relu else nn.Sequential(*modules)


def _variance_scaling(weight: Tensor) -> None:
    """TensorFlow's default: a normal distribution of variance 1/fan-in, of which two standard deviations are kept."""
    fan_in = weight[0].numel()
    std = fan_in**-0.5 / 0.87962566103423978  # what cutting at two leaves of a standard deviation of one
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
