"""MAE's keys: the image's own patches."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from contralex.plugin import Encoder, KeyEncoder, Rows, Step, at_least_float32
from contralex_mae.encoder import MaskedAutoencoder, patches


class PatchKeys(KeyEncoder):
    """Every patch of an image is the key of its position, in pixels; nothing is encoded.

    ``normalize``: whether each patch is brought to mean 0 and standard deviation 1.
    """

    def __init__(self, encoder: MaskedAutoencoder, normalize: bool = True) -> None:
        super().__init__()
        self.patch = encoder.patch
        self.normalize = normalize

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
        pixels = patches(at_least_float32(masked[:, :-1]), self.patch)  # (B, P, D)
        if not self.normalize:
            return pixels
        variance, mean = torch.var_mean(pixels, dim=2, keepdim=True)  # unbiased, as in the official code
        return (pixels - mean) / (variance + 1e-6).sqrt()
