"""DINO's last layer: prototypes of a length of their own, whatever the weights' lengths are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from contralex.plugin import BuildContext, Dictionary, Match, NegativeSource, Rows, Step

if TYPE_CHECKING:
    from contralex_dino.spec import WeightNormedPrototypes


class WeightNormed(NegativeSource):
    """Prototypes g·v/‖v‖ (K, D), of the student; the key side has a twin of them, which is averaged in g and v.

    SwAV's divide by their length in place before each step, so that no gradient goes through the division.
    """

    def __init__(self, spec: WeightNormedPrototypes, context: BuildContext) -> None:
        super().__init__()
        self.count = spec.count
        self.layer = weight_norm(nn.Linear(context.dim, spec.count, bias=False))
        gain = self.layer.get_parameter("parametrizations.weight.original0")  # (K, 1)
        with torch.no_grad():
            gain.fill_(1.0)
        gain.requires_grad_(spec.gain == "trained")
        assert context.key_encoder is not None
        # Kept outside the module tree, because its owner there is the key encoder.
        self._key_side = (context.key_encoder.side(self.layer),)

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        name = ("weight_normed_prototypes", torch.is_grad_enabled())
        if name not in step.cache:  # once for all matches: they are many, and so are prototypes
            online, twin = (layer.weight for layer in (self.layer, *self._key_side))
            assert isinstance(online, Tensor) and isinstance(twin, Tensor)
            step.cache[name] = online, twin.detach()
        online, twin = step.cache[name]
        return Dictionary(shared=online, key_shared=twin)
