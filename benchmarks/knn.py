"""Evaluation of features: weighted nearest neighbours beside lightly's, FAISS's and torch by hand, the linear probe
beside scikit-learn's logistic regression, and 24 linear classifiers at once beside one after the other.

50,000 training and 10,000 test features in 10 classes, as CIFAR-10's, of 512 dimensions (ResNet-18) and 2048
(ResNet-50).
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
    for width in (512,) if options.small else (512, 2048):
        train, test = features(rows[0], width, 0), features(rows[1], width, 1)
        report.add(compare_calls(f"kNN, {rows[0]} x {rows[1]}, {width}", knn(train, test, peers), options))
        report.add(compare_calls(f"linear probe, {rows[0]} x {width}", linear(train, peers), options))
        report.add(compare_calls(f"24 linear classifiers, {rows[0]} x {width}", sweep(train, test), options))


def features(rows: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """(N, F) features that overlap by class, and the classes (N,)."""
    centres = torch.randn(CLASSES, width, generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (rows,), generator=generator)
    return centres[labels] + 6 * torch.randn(rows, width, generator=generator), labels


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
    if faiss := peers.load("faiss", "faiss-cpu"):
        calls["FAISS, exact"] = lambda: by_faiss(faiss, *train, *test)
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


def sweep(train: Any, test: Any) -> dict[str, Callable[[], object]]:
    """An epoch of SGD for each pair of six learning rates and four weight decays; all sides have equal accuracies."""
    from contralex.evaluation.sgd_probe import Schedule, Setting, SweepTrainer
    from contralex.evaluation.sgd_probe import train as train_all

    settings = [
        Setting(rate, decay) for rate in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2) for decay in (0, 1e-5, 1e-4, 1e-3)
    ]
    batch, width = min(256, len(train[0])), train[0].shape[1]
    steps = len(train[0]) // batch

    def batches(epoch: int) -> Any:
        order = torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(epoch))
        return ((train[0][some], train[1][some]) for some in order[: steps * batch].split(batch))

    def ours(some: Any) -> Any:
        made = train_all(SweepTrainer(some, width, CLASSES), batches, 1, steps, Schedule("constant"))
        return made.hits(*test)[:, 0].tolist()

    def theirs() -> Any:
        hits = []
        for setting in settings:
            layer = torch.nn.Linear(width, CLASSES)
            with torch.no_grad():
                layer.weight.copy_(torch.randn(CLASSES, width, generator=torch.Generator().manual_seed(0)) * 0.01)
                layer.bias.zero_()
            sgd = torch.optim.SGD(layer.parameters(), setting.rate, momentum=0.9, weight_decay=setting.weight_decay)
            for rows, truth in batches(0):
                sgd.zero_grad()
                F.cross_entropy(layer(rows), truth).backward()
                sgd.step()
            hits.append(int((layer(test[0]).argmax(dim=1) == test[1]).sum()))
        return hits

    return {
        OURS: lambda: ours(settings),
        "contralex, one by one": lambda: [hits for setting in settings for hits in ours([setting])],
        "torch.optim.SGD, one by one": theirs,
    }


def by_faiss(faiss: Any, bank: Tensor, labels: Tensor, asked: Tensor, truth: Tensor) -> float:
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(F.normalize(bank, dim=1).numpy())
    cosine, near = (torch.from_numpy(found) for found in index.search(F.normalize(asked, dim=1).numpy(), K))
    votes = torch.zeros(len(asked), CLASSES).scatter_add_(1, labels[near], (cosine / TEMPERATURE).exp())
    return float((votes.argmax(dim=1) == truth).double().mean())


def by_hand(bank: Tensor, labels: Tensor, asked: Tensor, truth: Tensor) -> float:
    bank, hits = F.normalize(bank, dim=1), 0
    for rows, right in zip(asked.split(256), truth.split(256), strict=True):
        cosine, near = (F.normalize(rows, dim=1) @ bank.T).topk(K, dim=1)
        votes = torch.zeros(len(rows), CLASSES).scatter_add_(1, labels[near], (cosine / TEMPERATURE).exp())
        hits += int((votes.argmax(dim=1) == right).sum())
    return hits / len(asked)


if __name__ == "__main__":
    main(__doc__ or "", "knn", measure)
