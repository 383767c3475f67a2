"""DINO's last layer: prototypes of a length of their own, whatever the weights' lengths are."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from contralex.plugin import Dictionary, KeyEncoder, Match, NegativeSource, Rows, Step


class WeightNormedPrototypes(NegativeSource):
    """Prototypes g·v/‖v‖ (K, D), of the student; the key side has a twin of them, which is averaged in g and v.

    SwAV's divide by their length in place before each step, so that no gradient goes through the division. Without a
    ``key_encoder`` there is no twin: both sides use the same prototypes.
    """

    compares_samples = False

    def __init__(
        self,
        count: int,
        dim: int,
        gain: Literal["fixed", "trained"] = "fixed",
        key_encoder: KeyEncoder | None = None,
    ) -> None:
        super().__init__()
        self.num_prototypes = count
        self.layer = weight_norm(nn.Linear(dim, count, bias=False))
        length = self.layer.get_parameter("parametrizations.weight.original0")  # (K, 1)
        with torch.no_grad():
            length.fill_(1.0)
        length.requires_grad_(gain == "trained")
        # Kept outside the module tree, because its owner there is the key encoder.
        self._key_side = (self.layer if key_encoder is None else key_encoder.side(self.layer),)

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        name = ("weight_normed_prototypes", torch.is_grad_enabled())
        if name not in step.cache:  # once for all matches: they are many, and so are prototypes
            online, twin = (layer.weight for layer in (self.layer, *self._key_side))
            assert isinstance(online, Tensor) and isinstance(twin, Tensor)
            step.cache[name] = online, twin.detach()
        online, twin = step.cache[name]
        return Dictionary(shared=online, key_shared=twin)
