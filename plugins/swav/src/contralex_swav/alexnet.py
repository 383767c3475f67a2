"""The backbone of DeepCluster: AlexNet with BatchNorm, and the Sobel filter in front of it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.plugin import Backbone, slice_of_batch

# channels, kernel, stride, padding; None is a max-pooling
_LAYERS = ((96, 11, 4, 2), None, (256, 5, 1, 2), None, (384, 3, 1, 1), (384, 3, 1, 1), (256, 3, 1, 1), None)
_WIDTH = 4096


class SobelFilter(nn.Module):
    """The mean of the channels, then its two Sobel derivatives: (B, 3, H, W) to (B, 2, H, W)."""

    kernels: Tensor

    def __init__(self) -> None:
        super().__init__()
        across = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
        self.register_buffer("kernels", torch.stack([across, across.T]).unsqueeze(1))  # (2, 1, 3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images.mean(dim=1, keepdim=True), self.kernels.to(images.dtype), padding=1)


def sobel(backbone: Backbone) -> Backbone:
    """Put the Sobel filter in front of a backbone of two channels."""
    return Backbone(nn.Sequential(SobelFilter(), backbone.module), backbone.dim)


def alexnet(dropout: float = 0.5, channels: int = 3, image_size: Literal[224] = 224) -> Backbone:
    """Images of 224 pixels to the 4096 dimensions of the second linear layer, before its ReLU.

    ``dropout``: the probability that a value of the fully connected layers is dropped. ``channels``: of the image.
    ``image_size``: the one size that the network takes.
    """
    layers: list[nn.Module] = []
    for layer in _LAYERS:
        if layer is None:
            layers.append(nn.MaxPool2d(3, 2))
            continue
        width, kernel, stride, padding = layer
        layers += [nn.Conv2d(channels, width, kernel, stride, padding), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    head = (Dropout(dropout), nn.Linear(channels * 6 * 6, _WIDTH), nn.ReLU())
    module = nn.Sequential(*layers, nn.Flatten(), *head, Dropout(dropout), nn.Linear(_WIDTH, _WIDTH))
    for part in module:
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.01)
        if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
    return Backbone(module, _WIDTH)


class Dropout(nn.Module):
    """Dropout that is a function of the seed and of how often it was called, so that runs of one process and of
    several, and those that are resumed, drop the same. (torch's draws from the process's own generator.)

    ``p``: the probability that a value is dropped.
    """

    salt: Tensor
    calls: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.register_buffer("salt", torch.randint(2**31, ()))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        generator = torch.Generator().manual_seed(int(self.salt) * 1_000_003 + int(self.calls))
        self.calls += 1
        rows, mine = slice_of_batch(len(x))
        everyone = torch.rand(rows, *x.shape[1:], generator=generator)
        kept = everyone[mine].to(x.device) >= self.p
        return x * kept / (1 - self.p)
