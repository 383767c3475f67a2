"""Look-ups without an encoder: by mean colour, by histogram, by pixels. Where one of these finds the other view of a
sample, an encoder need not learn more."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

GROUP = 64  # samples among which the other view is looked for, so that the figures of all batch sizes compare
_LEAST = 8  # samples of a group that counts
_BINS = 16
_SIDE = 8  # pixels to which a view is reduced


def count_found(queries: Tensor, keys: Tensor) -> tuple[int, int]:
    """Of vectors (N, F) of samples in the same order: for how many queries the nearest key of at most 64 samples is
    that of their own sample, and how many there are. Where several are nearest, the first is taken."""
    found = total = 0
    for asked, there in zip(queries.split(GROUP), keys.split(GROUP), strict=True):
        if len(asked) >= _LEAST:
            nearest = torch.cdist(asked.double(), there.double()).argmin(dim=1)
            found += int((nearest == torch.arange(len(asked), device=nearest.device)).sum())
            total += len(asked)
    return found, total


def mean_colour(view: Tensor) -> Tensor:
    """(B, C) of images (B, C, H, W)."""
    return view.float().mean(dim=(2, 3))


def histogram(view: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(B, C·16): for each channel the fraction of pixels in each of 16 bins between ``low`` and ``high`` (C,)."""
    low, width = low[:, None, None], (high - low).clamp_min(1e-6)[:, None, None]
    bins = ((view.float() - low) / width * _BINS).long().clamp(0, _BINS - 1)
    return F.one_hot(bins, _BINS).float().mean(dim=(2, 3)).flatten(1)


def pixels(view: Tensor) -> Tensor:
    """(B, C·64): the image reduced to 8×8, less the mean of the batch, of length 1."""
    small = F.adaptive_avg_pool2d(view.float(), _SIDE).flatten(1)
    return F.normalize(small - small.mean(dim=0), dim=1)
