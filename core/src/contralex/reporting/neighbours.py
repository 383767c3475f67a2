"""Who is nearest to whom among features, and what classes neighbours vote for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.reporting.limits import CLASSES, PAIRS

_CHUNK = 1024  # queries at a time


@torch.no_grad()
def nearest(bank: Tensor, queries: Tensor, k: int, itself: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Cosines and row numbers (N, k) of the rows of ``bank`` (M, F) that are nearest to ``queries`` (N, F), the best
    first. ``itself`` (N,): a row for each query that is left out, -1 for none."""
    unit = F.normalize(bank.float(), dim=1)
    k = min(k, len(bank) - (itself is not None))
    found = []
    for start in range(0, len(queries), _CHUNK):
        cosine = F.normalize(queries[start : start + _CHUNK].float(), dim=1) @ unit.T
        if itself is not None:
            own = itself[start : start + _CHUNK]
            rows = (own >= 0).nonzero().flatten()
            cosine[rows, own[rows]] = float("-inf")
        found.append(cosine.topk(k, dim=1))
    return torch.cat([values for values, _ in found]), torch.cat([rows for _, rows in found])


@torch.no_grad()
def vote(cosine: Tensor, labels: Tensor, temperature: float, classes: int) -> Tensor:
    """(N,) the class that the neighbours' labels (N, k) vote for, each with exp(cosine/temperature), as
    :func:`contralex.evaluation.knn.weighted_knn` counts them (InstDisc, arXiv:1805.01978, section 3.4)."""
    weight = ((cosine - cosine[:, :1]) / temperature).exp()
    return weight.new_zeros(len(cosine), classes).scatter_add_(1, labels, weight).argmax(dim=1)


@dataclass(frozen=True)
class Confusion:
    """How often samples of one class (rows) are taken for another (columns). ``counts``: at most 20 × 20, else None.
    ``pairs``: class, what it was taken for, and how often, the most frequent first. ``right``: of ``total``."""

    counts: list[list[int]] | None
    pairs: list[tuple[int, int, int]]
    right: int
    total: int


def confuse(truth: Tensor, predicted: Tensor, classes: int) -> Confusion:
    """Count pairs of ``truth`` (N,) and ``predicted`` (N,)."""
    table = torch.bincount(truth * classes + predicted, minlength=classes**2).view(classes, classes)
    wrong = table.clone()
    wrong.fill_diagonal_(0)
    most = wrong.flatten().topk(min(PAIRS, classes**2))
    pairs = [
        (int(place) // classes, int(place) % classes, int(count))
        for count, place in zip(*most, strict=True)
        if int(count)
    ]
    counts: Any = table.tolist() if classes <= CLASSES else None
    return Confusion(counts, pairs, int(table.diagonal().sum()), len(truth))
