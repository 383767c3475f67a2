"""MAE's keys: the image's own patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from contralex.plugin import BuildContext, Encoder, KeyEncoder, Rows, Step
from contralex_mae.encoder import MaskedAutoencoder, patches

if TYPE_CHECKING:
    from contralex_mae.spec import Patches


class PatchKeys(KeyEncoder):
    """Every patch of an image is the key of its place, in pixels: the identity in place of a network."""

    def __init__(self, spec: Patches, context: BuildContext) -> None:
        super().__init__()
        assert isinstance(context.encoder, MaskedAutoencoder)
        self.patch = context.encoder.patch
        self.normalize = spec.normalize

    @torch.no_grad()
    def forward(
        self,
        encoder: Encoder,
        views: Mapping[int, Tensor],
        embedded: Mapping[int, Tensor],
        sample: Tensor,
        step: Step,
    ) -> Rows:
        return Rows.cat([Rows.from_view(self._keys(masked), sample, view) for view, masked in views.items()])

    def _keys(self, masked: Tensor) -> Tensor:
        found = patches(masked[:, :-1].float(), self.patch)  # (B, P, D)
        if not self.normalize:
            return found
        variance, mean = torch.var_mean(found, dim=2, keepdim=True)  # unbiased, as in the official code
        return (found - mean) / (variance + 1e-6).sqrt()
