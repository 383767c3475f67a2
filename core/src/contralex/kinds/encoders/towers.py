"""An encoder for each view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from contralex.errors import ContralexError
from contralex.lookup.slots import Encoder

if TYPE_CHECKING:
    from contralex.kinds.encoders import specs


class Towers(Encoder):
    """View v goes through encoder number v, from the image to the query and the key.

    Features are of the first encoder, or of all: each is then given its own channels of the image.
    """

    def __init__(self, spec: specs.Towers) -> None:
        super().__init__()
        self.towers = nn.ModuleList(tower.build() for tower in spec.towers.values())
        dims = {name: int(tower.dim) for name, tower in zip(spec.towers, self.towers, strict=True)}  # type: ignore[arg-type]
        self.dim = next(iter(dims.values()))
        if len(set(dims.values())) > 1:
            widths = ", ".join(f"{name} gives {dim}" for name, dim in dims.items())
            raise ContralexError(
                f"method.encoder.towers: the encoders give vectors of different widths ({widths}), and one is looked "
                "up among the other's; let their projectors end in the same width."
            )
        self.channels = spec.channels

    def tower(self, view: int) -> Encoder:
        if view >= len(self.towers):
            raise ContralexError(
                f"method.encoder.towers has {len(self.towers)} encoders, and there is a view {view}, counted from 0; "
                "give one for each view, in their order."
            )
        tower = self.towers[view]
        assert isinstance(tower, Encoder)
        return tower

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {view: self.tower(view)({view: image})[view] for view, image in views.items()}

    def queries(self, embedded: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {view: self.tower(view).queries({view: vectors})[view] for view, vectors in embedded.items()}

    def keys(self, embedded: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {view: self.tower(view).keys({view: vectors})[view] for view, vectors in embedded.items()}

    def features(self, view: Tensor) -> Tensor:
        if not self.channels:
            return self.tower(0).features(view)
        parts = _shared_out(view, self.channels)
        return torch.cat([self.tower(place).features(part) for place, part in enumerate(parts)], dim=1)

    def embedding(self, view: Tensor) -> Tensor:
        if not self.channels:
            return self.tower(0).embedding(view)
        parts = _shared_out(view, self.channels)
        return torch.cat([self.tower(place).embedding(part) for place, part in enumerate(parts)], dim=1)

    @property
    def backbone(self) -> nn.Module | None:
        """From what :meth:`features` takes to what it gives; None where an encoder has no backbone of its own."""
        if not self.channels:
            return getattr(self.tower(0), "backbone", None)
        backbones = [getattr(tower, "backbone", None) for tower in self.towers]
        whole = [each for each in backbones if isinstance(each, nn.Module)]
        return SideBySide(whole, self.channels) if len(whole) == len(backbones) else None


class SideBySide(nn.Module):
    """Backbones that each take some of an image's channels; their features are joined."""

    def __init__(self, backbones: Sequence[nn.Module], channels: Sequence[int]) -> None:
        super().__init__()
        self.backbones = nn.ModuleList(backbones)
        self.channels = tuple(channels)

    def forward(self, image: Tensor) -> Tensor:
        parts = _shared_out(image, self.channels)
        return torch.cat([one(part).flatten(1) for one, part in zip(self.backbones, parts, strict=True)], dim=1)


def _shared_out(image: Tensor, channels: Sequence[int]) -> list[Tensor]:
    """The image (B, ΣC, H, W) as one (B, C, H, W) for each encoder."""
    if image.shape[1] != sum(channels):
        raise ContralexError(
            f"method.encoder.channels: the encoders take {' + '.join(map(str, channels))} channels, and evaluation "
            f"sees images of {image.shape[1]}; let them add up to it."
        )
    return list(image.split(list(channels), dim=1))
