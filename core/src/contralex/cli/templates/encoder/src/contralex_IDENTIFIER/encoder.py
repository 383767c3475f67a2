"""ConvMixer as an encoder."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from contralex.plugin import Encoder


class ConvMixerEncoder(Encoder):
    """Images (B, 3, H, W) → patches → layers → mean over patches (B, width) → projector → unit vectors (B, dim)."""

    backbone: nn.Module

    def __init__(self, patch: int, width: int, depth: int, kernel: int, dim: int) -> None:
        super().__init__()
        patches = nn.Sequential(nn.Conv2d(3, width, patch, stride=patch), nn.GELU(), nn.BatchNorm2d(width))
        layers = [_Layer(width, kernel) for _ in range(depth)]
        self.backbone = nn.Sequential(patches, *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim))
        self.dim = dim

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {view: self.projector(self.features(images)) for view, images in views.items()}

    def features(self, view: Tensor) -> Tensor:
        found: Tensor = self.backbone(view)
        return found

    def keys(self, embedded: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor | None]]:
        # In float32 even under autocast: in float16 the guard against a zero length is itself zero.
        return {view: (F.normalize(vectors.float(), dim=1), None) for view, vectors in embedded.items()}


class _Layer(nn.Module):
    """x ← x + BN(GELU(depthwise(x))), then x ← BN(GELU(pointwise(x)))."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.patches = nn.Sequential(depthwise, nn.GELU(), nn.BatchNorm2d(width))
        self.channels = nn.Sequential(nn.Conv2d(width, width, 1), nn.GELU(), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.channels(x + self.patches(x))
        return mixed
