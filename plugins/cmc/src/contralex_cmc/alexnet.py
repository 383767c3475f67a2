"""AlexNet with BatchNorm after each layer, in any width."""

from __future__ import annotations

from torch import nn

from contralex.plugin import Backbone

# channels out, kernel, stride, padding, and whether a max-pooling of 3x3 follows
_CONVOLUTIONS = (
    (96, 11, 4, 2, True),
    (256, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)
_POSITIONS = 6 * 6  # that are left of 224x224 pixels
_LINEAR = (4096, 4096)


def alexnet_bn(width: float = 0.5, channels: int = 3) -> Backbone:
    """Images of 224 pixels to the features after the second linear layer.

    ``width`` multiplies the channels of every layer (CMC gives each view half an AlexNet). ``channels``: of the image.
    """
    layers: list[nn.Module] = []
    before = channels
    for full, kernel, stride, padding, pooled in _CONVOLUTIONS:
        after = max(1, round(full * width))
        layers += [
            nn.Conv2d(before, after, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
        layers += [nn.MaxPool2d(3, 2)] if pooled else []
        before = after
    layers.append(nn.Flatten())
    before *= _POSITIONS
    for full in _LINEAR:
        after = max(1, round(full * width))
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
        before = after
    return Backbone(nn.Sequential(*layers), before)
