"""Weighted nearest neighbours: how well a representation sorts classes, with nothing trained on top.

Source: InstDisc (arXiv:1805.01978), section 3.4; code: lemniscate.pytorch ``test.py``, function ``kNN``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex import progress
from contralex.data.base import Source, as_tensor
from contralex.errors import ContralexError, remedy
from contralex.evaluation.base import Accuracy
from contralex.evaluation.features import Features, baseline_splits, describe_pixels, labelled_splits, split_features
from contralex.evaluation.hits import count_hits
from contralex.evaluation.neighbours import nearest_in_blocks, select_best
from contralex.lookup import distributed

if TYPE_CHECKING:
    from contralex.data.views import Views
    from contralex.evaluation.remembered import FeatureStore
    from contralex.lookup.slots import Encoder
    from contralex.recipes.run_spec import KNNSpec

_BLOCK = 65_536  # rows that queries are compared with at a time
_CHUNK = 256  # queries of all processes at a time; four times as many where there is more than one block


def evaluate_knn(
    encoder: Encoder | None,
    source: Source,
    views: Views,
    spec: KNNSpec,
    batch_size: int,
    device: torch.device | str,
    workers: int = 0,
    *,
    baseline: bool = False,
    cache: FeatureStore | None = None,
) -> Accuracy:
    """Evaluate an encoder's features, or raw pixels where there is no encoder. :class:`NoLabels` if it cannot be.

    ``baseline``: on at most 50,000 training and 10,000 test samples, as raw pixels always are. ``cache``: where
    features are kept. Processes share the samples out: each encodes its part and keeps its features. All call this.
    """
    train, test = labelled_splits(source)
    of: dict[str, int] = {}
    if baseline or encoder is None:
        train, test, of = baseline_splits(train, test, least=spec.k)
    classes = 1 + int(max(as_tensor(split.labels or ()).max() for split in (train, test)))
    bank, asked = (
        split_features(encoder, split, views, spec.features, batch_size, device, workers, "eval.knn", cache)
        for split in (train, test)
    )
    top1, top5 = neighbour_accuracies(bank, asked, spec.k, spec.temperature, classes)
    protocol = {
        "k": spec.k,
        "temperature": spec.temperature,
        "metric": "cosine",
        "vote": "exp(cosine/temperature)",
        "features": describe_pixels(test, views) if encoder is None else spec.features,
        "classes": classes,
        "train_samples": bank.total,
        "test_samples": asked.total,
        **of,
        **bank.precision(),
    }
    return Accuracy(top1, top5, protocol)


def weighted_knn(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    k: int,
    temperature: float,
    classes: int,
    chunk: int = _CHUNK,
) -> dict[str, float]:
    """Top-1 and top-5 of (N, F) test features among (M, F) training features; labels (M,) and (N,).

    Each of the k nearest by cosine votes for its class with weight exp(cosine/temperature). A class that no
    neighbour votes for is not among the five first.
    """
    device = train_features.device
    bank, asked = (
        Features(rows, None, labels, device)
        for rows, labels in ((train_features, train_labels), (test_features, test_labels))
    )
    top1, top5 = neighbour_accuracies(bank, asked, k, temperature, classes, chunk)
    return {"top1": top1, "top5": top5}


def neighbour_accuracies(
    bank: Features, asked: Features, k: int, temperature: float, classes: int, chunk: int = _CHUNK
) -> tuple[float, float]:
    """As :func:`weighted_knn`, of features that processes share."""
    first, five = _hits(bank, asked, k, temperature, classes, chunk).tolist()
    return first / asked.total, five / asked.total


def check_neighbours(k: int, samples: int) -> None:
    """Refuse more neighbours than there are labelled training samples."""
    if k > samples:
        raise ContralexError(
            f"eval.knn.k is {k} but there are only {samples} labelled training samples; "
            f"set it to at most {samples}:{remedy('--set', f'eval.knn.k={samples}')}"
        )


@torch.no_grad()
def _hits(bank: Features, asked: Features, k: int, temperature: float, classes: int, chunk: int = _CHUNK) -> Tensor:
    """(2,) how many test samples of all processes have their class first, and among the first five."""
    check_neighbours(k, bank.total)
    if len(bank) > _BLOCK:
        chunk *= 4
    chunk = max(chunk // distributed.world(), 1)
    hits = torch.zeros(2, dtype=torch.long, device=bank.device)
    starts = range(0, max(distributed.gather_objects([len(asked)])), chunk)
    for start in progress.steps("Looking for neighbours", starts, len(starts)):
        here = slice(start, start + chunk)
        queries = distributed.gather_unequal(F.normalize(asked[here], dim=1))
        truth = distributed.gather_unequal(asked.labels[here])
        cosine, label = _nearest(bank, queries, k)
        # Relative to the best neighbour: the same order of classes, and no overflow at a low temperature.
        weight = ((cosine - cosine[:, :1]) / temperature).exp()
        votes = weight.new_zeros(len(queries), classes).scatter_add_(1, label, weight)
        best, ranked = votes.topk(min(5, classes), dim=1)
        hit = (ranked == truth[:, None]) & (best > 0)
        hits += count_hits(hit)
    return hits


def _nearest(bank: Features, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosines and labels (n, k) of the nearest among the rows of all processes, the best first."""
    cosine, label = nearest_in_blocks(queries, bank.unit_blocks(_BLOCK), k)
    if distributed.world() == 1:
        return cosine, label
    missing = (0, k - cosine.shape[1])  # of a part that has fewer rows
    cosine, label = F.pad(cosine, missing, value=float("-inf")), F.pad(label, missing)
    cosine, label = (torch.cat(list(distributed.gather(each.unsqueeze(0))), dim=1) for each in (cosine, label))
    best, where = select_best(cosine, k)
    return best, label.gather(1, where)
