"""Evaluation of features: weighted nearest neighbours beside lightly's and torch by hand, the linear probe beside
scikit-learn's logistic regression.

50,000 training and 10,000 test features of 512 dimensions in 10 classes, as CIFAR-10's under a ResNet-18.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measuring import OURS, Options, Peers, Report, compare_calls, main

K, TEMPERATURE, CLASSES, DECAY = 200, 0.1, 10, 1e-3


def measure(options: Options, report: Report, peers: Peers) -> None:
    rows = (500, 100) if options.small else (50_000, 10_000)
    train, test = features(rows[0], 0), features(rows[1], 1)
    report.add(compare_calls(f"kNN, {rows[0]} x {rows[1]}", knn(train, test, peers), options))
    report.add(compare_calls(f"linear probe, {rows[0]} x 512", linear(train, peers), options))


def features(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """(N, 512) features that overlap by class, and the classes (N,)."""
    centres = torch.randn(CLASSES, 512, generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (rows,), generator=generator)
    return centres[labels] + 6 * torch.randn(rows, 512, generator=generator), labels


def knn(train: Any, test: Any, peers: Peers) -> dict[str, Callable[[], object]]:
    from contralex.evaluation.knn import weighted_knn

    calls: dict[str, Callable[[], object]] = {
        OURS: lambda: weighted_knn(*train, *test, K, TEMPERATURE, CLASSES),
        "torch by hand": lambda: by_hand(*train, *test),
    }
    if lightly := peers.load("lightly.utils.benchmarking", "lightly"):
        bank, asked = F.normalize(train[0], dim=1).T.contiguous(), F.normalize(test[0], dim=1)

        def theirs() -> None:
            for rows in asked.split(256):
                lightly.knn_predict(rows, bank, train[1], CLASSES, K, TEMPERATURE)

        calls["lightly"] = theirs
    return calls


def linear(train: Any, peers: Peers) -> dict[str, Callable[[], object]]:
    from contralex.evaluation.linear import fit

    calls: dict[str, Callable[[], object]] = {OURS: lambda: fit(*train, DECAY)}
    if sklearn := peers.load("sklearn.linear_model", "scikit-learn"):
        standard = ((train[0] - train[0].mean(0)) / train[0].std(0)).numpy()

        def theirs(tolerance: float, kind: str) -> None:  # the same objective, which scikit-learn scales by N
            model = sklearn.LogisticRegression(C=1 / (DECAY * len(standard)), tol=tolerance, max_iter=1000)
            model.fit(standard.astype(kind), train[1].numpy())

        calls["scikit-learn, float32"] = lambda: theirs(1e-4, "float32")
        calls["scikit-learn, tolerance 1e-6"] = lambda: theirs(1e-6, "float64")
    return calls


def by_hand(bank: Tensor, labels: Tensor, asked: Tensor, truth: Tensor) -> float:
    bank, hits = F.normalize(bank, dim=1), 0
    for rows, right in zip(asked.split(256), truth.split(256), strict=True):
        cosine, near = (F.normalize(rows, dim=1) @ bank.T).topk(K, dim=1)
        votes = torch.zeros(len(rows), CLASSES).scatter_add_(1, labels[near], (cosine / TEMPERATURE).exp())
        hits += int((votes.argmax(dim=1) == right).sum())
    return hits / len(asked)


if __name__ == "__main__":
    main(__doc__ or "", "knn", measure)
