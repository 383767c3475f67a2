"""Weighted nearest neighbours: how well a representation sorts classes, with nothing trained on top.

Source: InstDisc (arXiv:1805.01978), section 3.4; code: lemniscate.pytorch ``test.py``, function ``kNN``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex import distributed
from contralex.data.base import EvalDataset, Source, Split, Subset, collate_plain, load
from contralex.errors import ContralexError

if TYPE_CHECKING:
    from contralex.parts.base import Encoder
    from contralex.parts.views import Views
    from contralex.spec.run import KNNSpec


# What a run's figures are called, in results and tables.
THIS, UNTRAINED, PIXELS = "this run", "untrained encoder", "raw pixels"


class NoLabels(ContralexError):
    """The data have no labels, or no split to judge with: there is nothing to evaluate."""


@dataclass(frozen=True)
class KNNResult:
    """Shares of the test samples in [0, 1], and everything that the figures depend on."""

    top1: float
    top5: float
    protocol: dict[str, Any] = field(default_factory=dict)


def evaluate_knn(
    encoder: Encoder | None,
    source: Source,
    views: Views,
    spec: KNNSpec,
    batch_size: int,
    device: torch.device | str,
    workers: int = 0,
) -> KNNResult:
    """Judges an encoder's features, or raw pixels where there is no encoder. :class:`NoLabels` if it cannot be.

    Processes share the samples out: each encodes its part, and asks for its part of the test samples. All call this.
    """
    train, test = labelled(source)
    classes = 1 + max(max(train.labels or ()), max(test.labels or ()))
    bank, bank_labels = features_of(encoder, train, views, spec.features, batch_size, device, workers)
    asked, truth = features_of(encoder, test, views, spec.features, batch_size, device, workers)
    mine = torch.tensor(distributed.part_of(len(asked)), dtype=torch.long)
    hits = _hits(bank, bank_labels, asked[mine], truth[mine], spec.k, spec.temperature, classes)
    top1, top5 = (int(hit) / len(asked) for hit in distributed.sum_over_processes(hits))
    protocol = {
        "k": spec.k,
        "temperature": spec.temperature,
        "metric": "cosine",
        "vote": "exp(cosine/temperature)",
        "features": "pixels" if encoder is None else spec.features,
        "classes": classes,
        "train_samples": len(bank),
        "test_samples": len(asked),
    }
    return KNNResult(top1, top5, protocol)


def weighted_knn(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    k: int,
    temperature: float,
    classes: int,
    chunk: int = 256,
) -> dict[str, float]:
    """Top-1 and top-5 of (N, F) test features among (M, F) training features; labels (M,) and (N,).

    Each of the k nearest by cosine votes for its class with weight exp(cosine/temperature). A class that no
    neighbour votes for is not among the five first.
    """
    hits = _hits(train_features, train_labels, test_features, test_labels, k, temperature, classes, chunk)
    top1, top5 = (int(hit) / len(test_features) for hit in hits)
    return {"top1": top1, "top5": top5}


@torch.no_grad()
def _hits(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    k: int,
    temperature: float,
    classes: int,
    chunk: int = 256,
) -> Tensor:
    """(2,) how many test samples have their class first, and among the first five."""
    if k > len(train_features):
        raise ContralexError(
            f"eval.knn.k is {k} but there are only {len(train_features)} labelled training samples; "
            f"set it to at most {len(train_features)}."
        )
    bank = F.normalize(train_features.float(), dim=1)
    hits = torch.zeros(2, dtype=torch.long, device=bank.device)
    for part, truth in zip(test_features.split(chunk), test_labels.split(chunk), strict=True):
        cosine, nearest = (F.normalize(part.float(), dim=1) @ bank.T).topk(k, dim=1)  # (n, k), best first
        # Relative to the best neighbour: the same order of classes, and no overflow at a low temperature.
        weight = ((cosine - cosine[:, :1]) / temperature).exp()
        votes = weight.new_zeros(len(part), classes).scatter_add_(1, train_labels[nearest], weight)
        best, ranked = votes.topk(min(5, classes), dim=1)
        hit = (ranked == truth[:, None]) & (best > 0)
        hits += torch.stack([hit[:, 0].sum(), hit.any(dim=1).sum()])
    return hits


@torch.no_grad()
def extract(
    function: Callable[[Tensor], Tensor],
    dataset: EvalDataset,
    batch_size: int,
    device: torch.device | str,
    workers: int = 0,
) -> tuple[Tensor, Tensor]:
    """Features (N, F) and the indices (N,) that they belong to: those of the items that could be read. The others
    are named. Each process encodes its part, and has the features of all."""
    features, indices, unread = [], [], []
    options = {"batch_size": batch_size, "num_workers": workers, "sampler": distributed.part_of(len(dataset))}
    with evaluating(function):
        for at, inputs, faults in load(dataset, collate_plain, **options):
            unread += [(fault.path, fault.reason) for fault in faults]
            if inputs is not None:
                features.append(function(inputs.to(device)).float())
                indices.append(at)
    for path, reason in distributed.everyones(unread):
        dataset.split.skip(path, reason)
    everyone = distributed.gather_unequal(torch.cat(features) if features else None)
    index = distributed.gather_unequal(torch.cat(indices).to(device) if indices else None)
    if everyone is None or index is None:
        raise ContralexError("None of the items to evaluate on can be read; see the warnings about each.")
    return everyone, index.cpu()


def raw_pixels(inputs: Tensor) -> Tensor:
    """(B, ...) to (B, F): the baseline that a representation must beat."""
    return inputs.flatten(1)


@contextmanager
def evaluating(function: object) -> Iterator[None]:
    """Puts the module behind ``function`` (itself, or the owner of a method) in eval mode, and then each of its
    submodules back as it was: a frozen part may have been in eval mode while the rest trained."""
    owner = getattr(function, "__self__", function)
    before = {module: module.training for module in owner.modules()} if isinstance(owner, nn.Module) else {}
    if isinstance(owner, nn.Module):
        owner.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def features_of(
    encoder: Encoder | None,
    split: Split,
    views: Views,
    which: Literal["backbone", "embedding"],
    batch_size: int,
    device: torch.device | str,
    workers: int,
) -> tuple[Tensor, Tensor]:
    """Features (N, F) and labels (N,) of a split, on every process; its raw pixels where there is no encoder."""
    function: Callable[[Tensor], Tensor] = raw_pixels
    if encoder is not None:
        function = encoder.features if which == "backbone" else _Embedding(encoder)
    features, index = extract(function, EvalDataset(split, views), batch_size, device, workers)
    return features, torch.as_tensor(split.labels)[index].to(features.device)


class _Embedding(nn.Module):
    """The vectors that are looked up, as keys: (B, D)."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, inputs: Tensor) -> Tensor:
        return self.encoder.embedding(inputs)


def labelled(source: Source) -> tuple[Split, Split]:
    """The labelled samples of both splits."""
    train, test = source.train(), source.test()
    if test is None:
        raise NoLabels(
            "The data have no split to judge with, so there is nothing to judge by; set eval.knn, eval.linear and "
            "eval.classify to null."
        )
    return with_labels(train, "train"), with_labels(test, "test")


def with_labels(split: Split, name: str) -> Split:
    """The samples of a split that have a label; :class:`NoLabels` if none has."""
    keep = [index for index, label in enumerate(split.labels or ()) if label >= 0]
    if not keep:
        raise NoLabels(
            f"The data's {name} split has no labels, so there is nothing to judge by; set eval.knn, eval.linear and "
            "eval.classify to null."
        )
    return split if len(keep) == len(split) else Subset(split, keep)
