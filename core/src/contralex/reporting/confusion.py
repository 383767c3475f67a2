"""What classes neighbours vote for, and which are taken for which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from contralex.reporting.limits import CLASSES, PAIRS


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
