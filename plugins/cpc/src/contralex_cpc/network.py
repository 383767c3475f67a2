"""The networks inside CPC's image encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.plugin import Backbone

Norm = Literal["none", "layer"]


def patch_network(
    blocks: Sequence[int] = (3, 4, 23),
    widths: Sequence[int] = (64, 128, 256),
    outputs: Sequence[int] | None = None,
    stem: Literal["imagenet", "small"] = "imagenet",
    norm: Norm = "none",
) -> Backbone:
    """Make a ResNet-v2 without BatchNorm, which would leak between patches (N, 3, H, W).

    Each stage has ``blocks``, bottlenecks of ``widths`` channels, and ends in ``outputs`` channels (None: 4x widths).
    """
    first = widths[0]
    if stem == "imagenet":
        layers: list[nn.Module] = [nn.Conv2d(3, first, 7, 2, 3), nn.MaxPool2d(3, 2, 1)]
    else:
        layers = [nn.Conv2d(3, first, 3, 1, 1)]
    before = first
    for stage, (count, width, after) in enumerate(
        zip(blocks, widths, outputs or [4 * width for width in widths], strict=True)
    ):
        for block in range(count):
            layers.append(_Bottleneck(before, width, after, stride=2 if stage and not block else 1, norm=norm))
            before = after
    layers += [_norm(norm, before), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return Backbone(nn.Sequential(*layers), before)


def _norm(kind: Norm, channels: int) -> nn.Module:
    """LayerNorm of a map (N, C, H, W): over all that one patch has, then a scale and a shift of each channel. A patch
    learns nothing of others through it."""
    return nn.GroupNorm(1, channels) if kind == "layer" else nn.Identity()


class _Bottleneck(nn.Module):
    """Activation before each convolution (He et al., 2016b). The last one starts at zero, so that a deep stack
    without normalisation begins as the identity; the paper does not say how its weights start."""

    def __init__(self, before: int, width: int, after: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.norms = nn.ModuleList(_norm(norm, channels) for channels in (before, width, width))
        self.reduce = nn.Conv2d(before, width, 1)
        self.space = nn.Conv2d(width, width, 3, stride, 1)
        self.expand = nn.Conv2d(width, after, 1)
        self.shortcut = nn.Conv2d(before, after, 1, stride) if before != after or stride > 1 else None
        for conv in (self.reduce, self.space):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(self.expand.weight)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.norms
        active = F.relu(first(x))
        y: Tensor = self.expand(F.relu(third(self.space(F.relu(second(self.reduce(active)))))))
        return y + (x if self.shortcut is None else self.shortcut(active))


class GridContext(nn.Module, ABC):
    """Latents of a grid (B, rows, columns, D) to contexts (B, rows, columns, ``dim``), each of what lies above it and
    of itself."""

    dim: int

    @abstractmethod
    def forward(self, latents: Tensor) -> Tensor: ...


MakeContext = Callable[[int], GridContext]
"""Makes the context of one direction, for latents of so many dimensions."""


def gru_context(width: int = 256) -> MakeContext:
    """Make contexts by a GRU of ``width`` dimensions down each column."""
    return partial(GRUContext, width=width)


def pixelcnn_context(blocks: int = 5, width: int = 256) -> MakeContext:
    """Make contexts by ``blocks`` residual blocks of masked convolutions, of ``width`` channels inside."""
    return partial(PixelCNNContext, blocks=blocks, width=width)


class GRUContext(GridContext):
    """A GRU down each column."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.dim = width
        self.gru = nn.GRU(dim, width, batch_first=True)

    def forward(self, latents: Tensor) -> Tensor:
        batch, _, columns, _ = latents.shape
        down = latents.transpose(1, 2).flatten(0, 1)  # (B·columns, rows, D)
        contexts: Tensor = self.gru(down)[0].unflatten(0, (batch, columns))
        return contexts.transpose(1, 2)


class PixelCNNContext(GridContext):
    """The context of a patch is its row and the rows above, never those below; it has the latents' dimensions."""

    def __init__(self, dim: int, blocks: int, width: int) -> None:
        super().__init__()
        self.dim = dim
        self.blocks = nn.ModuleList(_MaskedBlock(dim, width) for _ in range(blocks))

    def forward(self, latents: Tensor) -> Tensor:
        contexts = latents.permute(0, 3, 1, 2)
        for block in self.blocks:
            contexts = contexts + block(contexts)
        return torch.relu(contexts).permute(0, 2, 3, 1)


class _MaskedBlock(nn.Module):
    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(dim, width, 1)
        self.beside = nn.Conv2d(width, width, (1, 3), padding=(0, 1))
        self.above = nn.Conv2d(width, width, (2, 1))
        self.expand = nn.Conv2d(width, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.beside(F.relu(self.reduce(x)))
        y = F.relu(self.above(F.pad(y, (0, 0, 1, 0))))  # a row of zeros on top, so that a row sees only what is above
        out: Tensor = self.expand(y)
        return out
