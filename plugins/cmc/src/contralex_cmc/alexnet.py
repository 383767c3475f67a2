"""AlexNet with BatchNorm after each layer, in any width."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from contralex_cmc.spec import AlexNetBN

# channels out, kernel, stride, padding, and whether the largest of 3x3 places is taken after it
_CONVOLUTIONS = (
    (96, 11, 4, 2, True),
    (256, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)
_PLACES = 6 * 6  # that are left of 224x224 pixels
_LINEAR = (4096, 4096)


def alexnet(spec: AlexNetBN) -> tuple[nn.Module, int]:
    layers: list[nn.Module] = []
    before = spec.channels
    for channels, kernel, stride, padding, pooled in _CONVOLUTIONS:
        width = max(1, round(channels * spec.width))
        layers += [
            nn.Conv2d(before, width, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        layers += [nn.MaxPool2d(3, 2)] if pooled else []
        before = width
    layers.append(nn.Flatten())
    before *= _PLACES
    for channels in _LINEAR:
        width = max(1, round(channels * spec.width))
        layers += [nn.Linear(before, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        before = width
    return nn.Sequential(*layers), before
