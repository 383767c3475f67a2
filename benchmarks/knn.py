"""Evaluation of features: weighted nearest neighbours beside lightly's, FAISS's and torch by hand, the linear probe
beside scikit-learn's logistic regression, and 24 linear classifiers at once beside one after the other.

50,000 training and 10,000 test features in 10 classes, as CIFAR-10's, of 512 dimensions (ResNet-18). The accuracy of
each side of the first two stands below its case. Scikit-learn has the same objective, and gets standardised features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measuring import OURS, Case, Options, Peers, Report, compare_calls, main

WIDTH, K, TEMPERATURE, CLASSES, DECAY = 512, 200, 0.1, 10, 1e-3
Labelled = tuple[Tensor, Tensor]


def measure(options: Options, report: Report, peers: Peers) -> None:
    many, few = (500, 100) if options.small else (50_000, 10_000)
    train, test = features(many, WIDTH, 0), features(few, WIDTH, 1)
    report.add(compare_accurate(f"kNN, {many} x {few}, {WIDTH}", knn(train, test, peers), options))
    report.add(compare_accurate(f"linear probe, {many} x {WIDTH}", linear(train, test, peers), options))
    report.add(compare_calls(f"24 linear classifiers, {many} x {WIDTH}", sweep(train, test), options))


def compare_accurate(name: str, calls: Mapping[str, Callable[[], float]], options: Options) -> Case:
    """As :func:`compare_calls`, of calls that return an accuracy, which become figures."""
    accuracies: dict[str, float] = {}

    def keep(side: str) -> None:
        accuracies[side] = calls[side]()

    case = compare_calls(name, {side: partial(keep, side) for side in calls}, options)
    case.figures = {f"accuracy, {side}": accuracies[side] for side in calls}
    return case


def features(rows: int, width: int, seed: int) -> Labelled:
    """(N, F) features that overlap by class, and the classes (N,)."""
    centres = torch.randn(CLASSES, width, generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (rows,), generator=generator)
    return centres[labels] + 6 * torch.randn(rows, width, generator=generator), labels


def knn(train: Labelled, test: Labelled, peers: Peers) -> dict[str, Callable[[], float]]:
    from contralex.evaluation.knn import weighted_knn

    calls: dict[str, Callable[[], float]] = {
        OURS: lambda: weighted_knn(*train, *test, K, TEMPERATURE, CLASSES)["top1"],
        "torch by hand": lambda: by_hand(*train, *test),
    }
    if lightly := peers.load("lightly.utils.benchmarking", "lightly"):
        bank, asked = F.normalize(train[0], dim=1).T.contiguous(), F.normalize(test[0], dim=1)

        def theirs() -> float:
            ranked = [
                lightly.knn_predict(rows, bank, train[1], CLASSES, K, TEMPERATURE)[:, 0] for rows in asked.split(256)
            ]
            return float((torch.cat(ranked) == test[1]).double().mean())

        calls["lightly"] = theirs
    if faiss := peers.load("faiss", "faiss-cpu"):
        calls["FAISS, exact"] = lambda: by_faiss(faiss, *train, *test)
    return calls


def linear(train: Labelled, test: Labelled, peers: Peers) -> dict[str, Callable[[], float]]:
    from contralex.evaluation.linear import fit

    calls: dict[str, Callable[[], float]] = {OURS: lambda: fit(*train, DECAY).hits(*test)[0] / len(test[0])}
    if sklearn := peers.load("sklearn.linear_model", "scikit-learn"):
        mean, scale = train[0].mean(0), train[0].std(0)
        standard, asked = (((rows - mean) / scale).numpy() for rows in (train[0], test[0]))

        def theirs(tolerance: float, kind: str) -> float:  # the same objective, which scikit-learn scales by N
            model = sklearn.LogisticRegression(C=1 / (DECAY * len(standard)), tol=tolerance, max_iter=1000)
            model.fit(standard.astype(kind), train[1].numpy())
            return float(model.score(asked.astype(kind), test[1].numpy()))

        calls["scikit-learn, float32"] = lambda: theirs(1e-4, "float32")
        calls["scikit-learn, float64, tolerance 1e-6"] = lambda: theirs(1e-6, "float64")
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
