"""Retrieval against scikit-learn's average precision and a naive recall."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.evaluation import retrieval
from contralex.evaluation.features import Features
from contralex.evaluation.retrieval import retrieve
from tests.core.test_knn import clusters


def wrap(rows: Tensor, labels: Tensor) -> Features:
    return Features(rows, None, labels, torch.device("cpu"))


def naive(asked: Tensor, truth: Tensor, bank: Tensor, labels: Tensor, k: int, same: bool) -> tuple[float, float, int]:
    metrics = pytest.importorskip("sklearn.metrics")
    cosine = F.normalize(asked, dim=1) @ F.normalize(bank, dim=1).T
    precisions, found = [], 0
    for i in range(len(asked)):
        others = [j for j in range(len(bank)) if not (same and i == j)]
        relevant = [bool(labels[j] == truth[i]) for j in others]
        if not any(relevant):
            continue
        scores = [float(cosine[i, j]) for j in others]
        precisions.append(metrics.average_precision_score(relevant, scores))
        best = sorted(range(len(others)), key=lambda at: -scores[at])[:k]
        found += any(relevant[at] for at in best)
    return sum(precisions) / len(precisions), found / len(precisions), len(precisions)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("numbers", [1 << 24, 100])
def test_it_is_scikit_learns_average_precision(same: bool, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_NUMBERS", numbers)
    monkeypatch.setattr(retrieval, "_BLOCK", 17)
    (asked, truth), (bank, labels) = clusters(40, 1), clusters(60, 0)
    if same:
        bank, labels = asked, truth
    truth = truth.clone()
    truth[3] = 99  # the only one of its class
    if same:
        labels = truth
    queries = wrap(asked, truth)
    found = retrieve(queries, queries if same else wrap(bank, labels), [1, 5])
    mean, recall, queries = naive(asked, truth, bank, labels, 5, same)
    assert found.mean_average_precision == pytest.approx(mean, abs=1e-6)
    assert found.recall[5] == pytest.approx(recall)
    assert (found.queries, found.without) == (queries, 40 - queries)
    assert found.recall[1] <= found.recall[5] and 0 < mean < 1


def test_perfect_features_find_all() -> None:
    features, labels = torch.eye(3).repeat(4, 1), torch.arange(3).repeat(4)
    queries = wrap(features, labels)
    found = retrieve(queries, queries, [1])
    assert found.mean_average_precision == found.recall[1] == 1


def test_nothing_to_find_is_zero_queries() -> None:
    queries = wrap(torch.eye(3), torch.arange(3))
    found = retrieve(queries, queries, [1, 2])
    assert (found.queries, found.without, found.mean_average_precision) == (0, 3, 0.0)
