"""An encoder for each view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from contralex.errors import ContralexError
from contralex.kinds.encoders.specs import check_channels
from contralex.lookup.slots import Encoder


class TowersEncoder(Encoder):
    """View v goes through encoder number v of ``towers``, from the image to the query and the key.

    ``towers``: at least two encoders by names of your own, all of one ``dim``. ``features``: what is kept after
    training, those of the ``first`` encoder (CLIP's images), or of all, ``concatenated``: each is then given its own
    ``channels`` of the image, (1, 2) for CMC's L and ab. CMC, arXiv:1906.05849, section 3.2; CLIP, arXiv:2103.00020,
    section 2.3.
    """

    takes_company = True  # each tower says for itself

    def __init__(
        self,
        towers: Mapping[str, Encoder],
        features: Literal["first", "concatenated"],
        channels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        check_channels(channels, features, len(towers))
        self.towers = nn.ModuleList(towers.values())
        self.view_names = tuple(towers)
        dims = {name: tower.dim for name, tower in towers.items()}
        self.dim = next(iter(dims.values()))
        if len(set(dims.values())) > 1:
            widths = ", ".join(f"{name} gives {dim}" for name, dim in dims.items())
            raise ContralexError(
                f"method.encoder.towers: the encoders give vectors of different widths ({widths}), and one is looked "
                "up among the other's; let their projectors end in the same width."
            )
        self.channels = tuple(channels)

    def tower(self, view: int) -> Encoder:
        if view >= len(self.towers):
            raise ContralexError(
                f"method.encoder.towers has {len(self.towers)} encoders, and there is a view {view}, counted from 0; "
                "give one for each view, in their order."
            )
        return cast(Encoder, self.towers[view])

    @property
    def outputs(self) -> dict[str, int]:
        """Those of all towers; each view has its own tower's."""
        towers = [self.tower(view) for view in range(len(self.towers))]
        return {name: dim for tower in towers for name, dim in tower.outputs.items()}

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Any]:
        return {view: self.tower(view)({view: image})[view] for view, image in views.items()}

    def encode_keys(self, views: Mapping[int, Tensor]) -> dict[int, Any]:
        return {view: self.tower(view).encode_keys({view: image})[view] for view, image in views.items()}

    @property
    def has_same_sides(self) -> bool:
        own = type(self)
        is_own = (own.queries, own.keys) == (TowersEncoder.queries, TowersEncoder.keys)
        is_own = is_own and (own.queries_of, own.keys_of) == (TowersEncoder.queries_of, TowersEncoder.keys_of)
        return is_own and all(self.tower(view).has_same_sides for view in range(len(self.towers)))

    def queries(self, embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {view: self.tower(view).queries({view: vectors})[view] for view, vectors in embedded.items()}

    def keys(self, embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {view: self.tower(view).keys({view: vectors})[view] for view, vectors in embedded.items()}

    def queries_of(self, output: str, embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {view: self.tower(view).queries_of(output, {view: each})[view] for view, each in embedded.items()}

    def keys_of(self, output: str, embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {view: self.tower(view).keys_of(output, {view: each})[view] for view, each in embedded.items()}

    def features(self, view: Tensor) -> Tensor:
        if not self.channels:
            return self.tower(0).features(view)
        parts = _split_channels(view, self.channels)
        return torch.cat([self.tower(index).features(part) for index, part in enumerate(parts)], dim=1)

    def embedding(self, view: Tensor) -> Tensor:
        if not self.channels:
            return self.tower(0).embedding(view)
        parts = _split_channels(view, self.channels)
        return torch.cat([self.tower(index).embedding(part) for index, part in enumerate(parts)], dim=1)

    @property
    def backbone(self) -> nn.Module | None:
        """From what :meth:`features` takes to what it gives; None where an encoder has no backbone of its own."""
        if not self.channels:
            return self.tower(0).backbone
        backbones = [self.tower(index).backbone for index in range(len(self.towers))]
        present = [backbone for backbone in backbones if backbone is not None]
        return SideBySide(present, self.channels) if len(present) == len(backbones) else None


class SideBySide(nn.Module):
    """Backbones that each take some of an image's channels; their features are joined."""

    def __init__(self, backbones: Sequence[nn.Module], channels: Sequence[int]) -> None:
        super().__init__()
        self.backbones = nn.ModuleList(backbones)
        self.channels = tuple(channels)

    def forward(self, image: Tensor) -> Tensor:
        parts = _split_channels(image, self.channels)
        return torch.cat([one(part).flatten(1) for one, part in zip(self.backbones, parts, strict=True)], dim=1)


def _split_channels(image: Tensor, channels: Sequence[int]) -> list[Tensor]:
    """The image (B, ΣC, H, W) as one (B, C, H, W) for each encoder."""
    if image.shape[1] != sum(channels):
        raise ContralexError(
            f"method.encoder.channels: the encoders take {' + '.join(map(str, channels))} channels, and evaluation "
            f"sees images of {image.shape[1]}; let them add up to it."
        )
    return list(image.split(list(channels), dim=1))
