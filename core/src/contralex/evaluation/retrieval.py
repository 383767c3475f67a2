"""Retrieval: whether the images that are nearest to a query are of its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from contralex import progress
from contralex.evaluation.features import Features

_NUMBERS = 1 << 24  # cosines that are sorted at a time
_BLOCK = 65_536  # rows of a gallery in float32 at a time


@dataclass(frozen=True)
class Retrieved:
    """``mean_average_precision`` in [0, 1], and ``recall`` by k, over ``queries`` that have anything to find;
    ``without``: those that have not, and count for nothing."""

    mean_average_precision: float
    recall: dict[int, float]
    queries: int
    without: int


@torch.no_grad()
def retrieve(queries: Features, gallery: Features, ks: Sequence[int]) -> Retrieved:
    """Rank a gallery (M, F) by cosine for each query (N, F); what has the query's label is relevant. Where the gallery
    is the same object as the queries, none finds itself.

    Average precision is the mean, over the relevant, of the precision at the rank of each, over the whole gallery (Zhu,
    2004). Recall at k is the fraction of queries with at least one relevant among the k first (Jégou et al., 2011;
    Oh Song et al., 2016, arXiv:1511.06452). The cosines of some queries to the whole gallery are held at a time.
    """
    same = gallery is queries
    most = max(_NUMBERS // max(len(gallery), 1), 1)
    precision = torch.zeros((), dtype=torch.float64, device=gallery.device)
    found = torch.zeros(len(ks), dtype=torch.long, device=gallery.device)
    counted = 0
    starts = range(0, len(queries), most)
    for start in progress.steps("Ranking images", starts, len(starts)):
        rows = slice(start, start + most)
        asked = F.normalize(queries[rows], dim=1)
        cosine = torch.cat([asked @ units.T for units, _ in gallery.unit_blocks(_BLOCK)], dim=1)  # (n, M)
        if same:
            cosine.diagonal(offset=start).fill_(float("-inf"))
        order = cosine.argsort(dim=1, descending=True)
        if same:
            order = order[:, :-1]  # itself is last
        hit = gallery.labels[order] == queries.labels[rows, None]
        relevant = hit.sum(dim=1)
        hit, relevant = hit[relevant > 0], relevant[relevant > 0]
        counted += len(hit)
        rank = torch.arange(1, hit.shape[1] + 1, device=gallery.device, dtype=torch.float64)
        at_rank = hit.cumsum(dim=1) / rank
        precision += ((at_rank * hit).sum(dim=1) / relevant).sum()
        found += torch.stack([hit[:, :k].any(dim=1).sum() for k in ks])
    recall = {k: int(count) / counted if counted else 0.0 for k, count in zip(ks, found.tolist(), strict=True)}
    mean = float(precision) / counted if counted else 0.0
    return Retrieved(mean, recall, counted, len(queries) - counted)
