"""ConvMixer as an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from contralex.plugin import Encoder

if TYPE_CHECKING:
    from contralex_IDENTIFIER.spec import ConvMixer


class ConvMixerEncoder(Encoder):
    """Images (B, 3, H, W) → patches → layers → mean over places (B, width) → projector → unit vectors (B, dim)."""

    backbone: nn.Module

    def __init__(self, spec: ConvMixer) -> None:
        super().__init__()
        width = spec.width
        patches = nn.Sequential(nn.Conv2d(3, width, spec.patch, stride=spec.patch), nn.GELU(), nn.BatchNorm2d(width))
        layers = [_Layer(width, spec.kernel) for _ in range(spec.depth)]
        self.backbone = nn.Sequential(patches, *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, spec.dim))
        self.dim = spec.dim

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {view: self.projector(self.features(images)) for view, images in views.items()}

    def features(self, view: Tensor) -> Tensor:
        found: Tensor = self.backbone(view)
        return found

    def keys(self, embedded: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor | None]]:
        # In float32 even under autocast: in half precision the guard against a zero length is itself zero.
        return {view: (F.normalize(vectors.float(), dim=1), None) for view, vectors in embedded.items()}


class _Layer(nn.Module):
    """x ← x + BN(GELU(depthwise(x))), then x ← BN(GELU(pointwise(x)))."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.places = nn.Sequential(depthwise, nn.GELU(), nn.BatchNorm2d(width))
        self.channels = nn.Sequential(nn.Conv2d(width, width, 1), nn.GELU(), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.channels(x + self.places(x))
        return mixed
