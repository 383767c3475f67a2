"""An all-convolutional network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from contralex.plugin import Backbone, ContralexError, PlacesBackbone


class AllConv(nn.Module, PlacesBackbone):
    """Images (B, 3, H, W) → stages, each of half the size → mean over the map (B, ``widths[-1]``)."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in widths:
            layers += [*_convolve(before, width, stride=1), *_convolve(width, width, stride=2)]
            before = width
        self.layers = nn.Sequential(*layers)
        self.halvings = len(widths)

    def forward(self, images: Tensor) -> Tensor:
        return self.encode_places(images)[0]

    def encode_places(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if mask is not None:
            raise ContralexError("This network cannot hide places; use views without masks.")
        places = self.layers(images).flatten(2).mT  # (B, P, F), row by row of the map
        return places.mean(dim=1), places

    def grid(self, images: Tensor) -> tuple[int, int]:
        rows, columns = images.shape[2:]
        for _ in range(self.halvings):
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
        return rows, columns


def _convolve(before: int, width: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)  # BatchNorm has a bias
    return [convolution, nn.BatchNorm2d(width), nn.ReLU()]


def make_all_conv(widths: Sequence[int] = (64, 128, 256)) -> Backbone:
    return Backbone(AllConv(widths), widths[-1])
