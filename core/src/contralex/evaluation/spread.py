"""How unit vectors lie to each other: alignment, uniformity, and the overlap of neighbours. No labels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

_TILE = 2048  # rows whose products are held at a time


def alignment(first: Tensor, second: Tensor) -> float:
    """The mean squared distance of two views of a sample, (N, F) each, as unit vectors; 0 is perfect.

    Source: Wang & Isola, 2020, arXiv:2005.10242, section 4.1, with α = 2.
    """
    return float((F.normalize(first, dim=1) - F.normalize(second, dim=1)).square().sum(dim=1).double().mean())


def uniformity(features: Tensor) -> float:
    """log of the mean of exp(-2 ‖x - y‖²) over the pairs of different samples of (N, F), as unit vectors; lower is more
    uniform, and 0 where all are alike. NaN for fewer than two.

    Source: Wang & Isola, 2020, arXiv:2005.10242, section 4.1, with t = 2.
    """
    units = F.normalize(features, dim=1)
    total = torch.zeros((), dtype=torch.float64, device=units.device)
    for at, tile in _tiles(units):
        kernel = torch.exp(4 * (tile - 1)).double()  # ‖x - y‖² = 2 - 2 x·y
        total += kernel.sum() - kernel.diagonal(offset=at).sum()
    pairs = len(units) * (len(units) - 1)
    return float((total / pairs).log()) if pairs else float("nan")


def neighbour_overlap(first: Tensor, second: Tensor, k: int) -> float:
    """The mean fraction of a sample's k nearest others, by cosine, that two sets of features (N, F) and (N, G) share.

    Source: the mutual nearest-neighbour metric of Huh et al., 2024, arXiv:2405.07987, appendix A.
    """
    a, b = (F.normalize(features, dim=1) for features in (first, second))
    shared = 0
    for (at, left), (_, right) in zip(_tiles(a), _tiles(b), strict=True):
        near = [_nearest(tile, at, k) for tile in (left, right)]  # (n, k) each
        shared += int((near[0][:, :, None] == near[1][:, None, :]).sum())
    return shared / (len(a) * k)


def view_recall(first: Tensor, second: Tensor) -> float:
    """The fraction of samples whose second view is, of all second views, the nearest to their first one by cosine.
    Both are (N, F), row by row of one sample.

    Source: instance retrieval, the look-up that MoCo trains (arXiv:1911.05722, section 3.1), as recall at 1.
    """
    a, b = (F.normalize(features, dim=1) for features in (first, second))
    hits = 0
    for start in range(0, len(a), _TILE):
        found = (a[start : start + _TILE] @ b.T).argmax(dim=1)
        hits += int((found == torch.arange(start, start + len(found), device=found.device)).sum())
    return hits / len(a)


def _tiles(units: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The cosines (n, N) of some rows to all, with the index of the first of them."""
    for start in range(0, len(units), _TILE):
        yield start, units[start : start + _TILE] @ units.T


def _nearest(cosine: Tensor, at: int, k: int) -> Tensor:
    cosine.diagonal(offset=at).fill_(float("-inf"))  # itself
    return cosine.topk(k, dim=1).indices
