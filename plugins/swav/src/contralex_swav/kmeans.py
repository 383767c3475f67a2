"""k-means over remembered vectors, and the whitening before it: functions of their arguments and the generator."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.plugin import at_least_float32

_BLOCK = 8192  # points that are compared with all centroids at a time
_FLAT = 1e-6  # of the largest variance: a direction with less has none, and is not blown up


def kmeans(
    points: Tensor,
    count: int,
    iterations: int,
    generator: torch.Generator,
    *,
    spherical: bool,
    empty: Literal["keep", "split"],
) -> tuple[Tensor, Tensor]:
    """Points (N, D) to ``count`` centroids (K, D) in at least float32, and the nearest centroid of each point (N,).

    ``spherical``: nearness is the inner product, and centroids have unit length (DeepCluster-v2); else it is the
    Euclidean distance. Centroids begin as K of the points, or as all of them, and some again, where K > N. ``empty``:
    a centroid that loses all of its points stays where it is (``keep``), or begins anew beside another that has some
    (``split``; DeepCluster, section 3.3).
    """
    again = torch.randint(len(points), (max(count - len(points), 0),), generator=generator)
    begin = torch.cat([torch.randperm(len(points), generator=generator)[:count], again])
    centroids = at_least_float32(points[begin.to(points.device)])
    for _ in range(iterations):
        sums, sizes = _sums(points, _nearest(points, centroids, spherical), centroids)
        has_some = (sizes > 0).unsqueeze(1)
        centroids = torch.where(has_some, sums / sizes.clamp(min=1).unsqueeze(1), centroids)
        if empty == "split":
            centroids = _split(centroids, sizes, generator)
        if spherical:
            centroids = F.normalize(centroids, dim=1)
    return centroids, _nearest(points, centroids, spherical)


def whiten(points: Tensor, width: int) -> Tensor:
    """Points (N, D) to their first ``width`` principal components (N, width): variance 1 each, then unit length.

    DeepCluster, section 4.1 ("Implementation details"): PCA to 256 dimensions, whitened, ℓ2-normalised.
    """
    total = torch.zeros(points.shape[1], dtype=torch.float64, device=points.device)
    for block in points.split(_BLOCK):
        total += block.double().sum(dim=0)
    like = at_least_float32(points[:1])
    mean = (total / len(points)).to(like)
    products = torch.zeros(points.shape[1], points.shape[1], dtype=torch.float64, device=points.device)
    for block in points.split(_BLOCK):
        centred = at_least_float32(block) - mean
        products += (centred.T @ centred).double()
    variance, directions = torch.linalg.eigh((products / len(points)).cpu())  # in rising order; not on every device
    variance, directions = variance[-width:], directions[:, -width:]
    is_there = variance > _FLAT * variance[-1].clamp(min=1e-12)
    scale = torch.where(is_there, variance.clamp(min=1e-30).rsqrt(), torch.zeros_like(variance))
    change = (directions * scale).to(like)  # (D, width)
    return torch.cat([F.normalize((at_least_float32(block) - mean) @ change, dim=1) for block in points.split(_BLOCK)])


def _nearest(points: Tensor, centroids: Tensor, spherical: bool) -> Tensor:
    # ‖x − c‖² = ‖x‖² − 2·(x·c − ‖c‖²/2)
    shift = 0.0 if spherical else centroids.square().sum(dim=1) / 2
    return torch.cat([(at_least_float32(block) @ centroids.T - shift).argmax(dim=1) for block in points.split(_BLOCK)])


def _sums(points: Tensor, nearest: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """The sum (K, D) of the points of each of the centroids (K, D), and how many they are (K,).

    By a product and not by scattered additions, whose order, and so whose rounding, differs from process to process
    on a GPU.
    """
    sums, count = torch.zeros_like(centroids), len(centroids)
    for block, index in zip(points.split(_BLOCK), nearest.split(_BLOCK), strict=True):
        sums += F.one_hot(index, count).to(sums.dtype).T @ block.to(sums.dtype)
    return sums, torch.bincount(nearest, minlength=count)


def _split(centroids: Tensor, sizes: Tensor, generator: torch.Generator) -> Tensor:
    """Replace each empty centroid by one with points, drawn by how many it has, changed by 1/1024 in random signs."""
    lost = (sizes == 0).nonzero().flatten()
    if not len(lost):
        return centroids
    donors = torch.multinomial(sizes.double().cpu(), len(lost), replacement=True, generator=generator)
    signs = torch.randint(0, 2, (len(lost), centroids.shape[1]), generator=generator) * 2 - 1
    changed = centroids.clone()
    changed[lost] = centroids[donors.to(centroids.device)] * (1 + signs.to(centroids) / 1024)
    return changed
