"""The ResNet for 32x32 images (He et al., 2016, section 4.2), with a 1x1 convolution where a shortcut changes shape."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from contralex.plugin import Backbone


def cifar_resnet(depth: int, widths: Sequence[int] = (16, 16, 32, 64), channels: int = 3) -> Backbone:
    """A 3x3 convolution and three stages of basic blocks.

    ``depth``: layers in all, 6n + 2. ``widths``: channels of the first convolution and of the three stages, the last of
    which is F. ``channels``: of the image.
    """
    before, *stages = widths
    layers: list[nn.Module] = [*_convolution(channels, before, 3, 1), nn.ReLU(inplace=True)]
    for number, width in enumerate(stages):
        for block in range((depth - 2) // 6):
            layers.append(Block(before, width, stride=2 if number and not block else 1))
            before = width
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    return Backbone(module, before)


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_convolution(before, width, 3, stride), nn.ReLU(inplace=True), *_convolution(width, width, 3, 1)
        )
        same = before == width and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(before, width, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x))


def _convolution(before: int, width: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(before, width, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(width)
