"""Weighted kNN against a naive loop and scikit-learn, and its evaluation of encoders."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.data.base import Source, Split, Unreadable
from contralex.data.loading import EvalDataset
from contralex.data.views import Views
from contralex.errors import ContralexError
from contralex.evaluation.base import NoLabels
from contralex.evaluation.encoding import extract_features
from contralex.evaluation.features import raw_pixels
from contralex.evaluation.knn import evaluate_knn, weighted_knn
from contralex.lookup.slots import Encoder
from contralex.recipes.run_spec import KNNSpec


def clusters(count: int, seed: int, classes: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    middles = torch.randn(classes, 8, generator=torch.Generator().manual_seed(99))
    return middles[labels] + 1.2 * torch.randn(count, 8, generator=generator), labels


def naive(bank: Tensor, labels: Tensor, asked: Tensor, truth: Tensor, k: int, t: float) -> dict[str, float]:
    first = five = 0
    for query, own in zip(asked, truth, strict=True):
        cosines = [float(query @ key / (query.norm() * key.norm())) for key in bank]
        nearest = sorted(range(len(bank)), key=lambda i: -cosines[i])[:k]
        votes: dict[int, float] = {}
        for i in nearest:
            votes[int(labels[i])] = votes.get(int(labels[i]), 0.0) + math.exp(cosines[i] / t)
        ranked = sorted(votes, key=lambda c: -votes[c])
        first += ranked[0] == int(own)
        five += int(own) in ranked[:5]
    return {"top1": first / len(asked), "top5": five / len(asked)}


def clear(
    bank: Tensor, labels: Tensor, asked: Tensor, k: int, temperature: float, classes: int = 7, close: float = 1e-5
) -> Tensor:
    """(N,) whose answer no rounding decides: neither who the k nearest are, nor which class is first or fifth."""
    cosines = F.normalize(asked.double(), dim=1) @ F.normalize(bank.double(), dim=1).T
    ranked, who = cosines.sort(dim=1, descending=True)
    weight = ((ranked - ranked[:, :1]) / temperature).exp()[:, :k]
    votes = weight.new_zeros(len(asked), classes).scatter_add_(1, labels[who[:, :k]], weight).sort(dim=1).values.flip(1)
    gaps = [votes[:, place] - votes[:, place + 1] for place in (0, 4)]
    sure = (gaps[0] > 10 * close) & ((gaps[1] > 10 * close) | (votes[:, 4] == 0))
    if k < len(bank):
        sure &= ranked[:, k - 1] - ranked[:, k] > close
    assert sure.double().mean() > (0.8 if close < 1e-3 else 0.4)  # what is left out is not compared
    return sure


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (60, 0.5)])
def test_knn_is_the_naive_loop(k: int, temperature: float) -> None:
    bank, labels = clusters(60, 0)
    asked, truth = clusters(40, 1)
    asked, truth = (rows[clear(bank, labels, asked, k, temperature)] for rows in (asked, truth))
    found = weighted_knn(bank, labels, asked, truth, k, temperature, 7, chunk=7)
    assert found == naive(bank, labels, asked, truth, k, temperature)
    assert 0.2 < found["top1"] < 1


def test_knn_is_scikit_learns() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    bank, labels = clusters(200, 0)
    asked, truth = clusters(100, 1)
    asked, truth = (rows[clear(bank, labels, asked, 20, 0.07)] for rows in (asked, truth))
    judge = neighbors.KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
    )
    score = judge.fit(bank.numpy(), labels.numpy()).score(asked.numpy(), truth.numpy())
    assert weighted_knn(bank, labels, asked, truth, 20, 0.07, 7)["top1"] == pytest.approx(score)


def test_knn_is_dinos_and_lightlys() -> None:
    """As eval_knn.py and knn_predict compute it: similarities of unit vectors, one-hot votes times exp(s / T)."""
    bank, labels = clusters(200, 0)
    asked, truth = clusters(100, 1)
    asked, truth = (rows[clear(bank, labels, asked, 20, 0.07)] for rows in (asked, truth))
    similarity = F.normalize(asked, dim=1) @ F.normalize(bank, dim=1).T
    weights, near = similarity.topk(20, largest=True, sorted=True)
    votes = (F.one_hot(labels[near], 7) * (weights / 0.07).exp()[:, :, None]).sum(dim=1)  # (N, 7)
    ranked = votes.argsort(dim=1, descending=True)
    found = weighted_knn(bank, labels, asked, truth, 20, 0.07, 7)
    assert found["top1"] == (ranked[:, 0] == truth).double().mean()
    voted = votes.gather(1, ranked)[:, :5] > 0  # theirs counts a class without a vote, too
    assert found["top5"] == ((ranked[:, :5] == truth[:, None]) & voted).any(dim=1).double().mean()


def test_chunks_and_the_length_of_vectors_change_nothing() -> None:
    bank, labels = clusters(60, 0)
    asked, truth = clusters(40, 1)
    asked, truth = (rows[clear(bank, labels, asked, 10, 0.07)] for rows in (asked, truth))
    expected = weighted_knn(bank, labels, asked, truth, 10, 0.07, 7)
    assert weighted_knn(bank * 5, labels, asked * 0.01, truth, 10, 0.07, 7, chunk=1) == expected


def test_a_low_temperature_does_not_overflow() -> None:
    bank, labels = clusters(60, 0)
    asked, truth = clusters(40, 1)
    asked, truth = (rows[clear(bank, labels, asked, 1, 0.07)] for rows in (asked, truth))
    one = weighted_knn(bank, labels, asked, truth, 1, 0.07, 7)
    assert weighted_knn(bank, labels, asked, truth, 20, 0.001, 7)["top1"] == one["top1"]


def test_a_class_that_nobody_votes_for_is_not_among_the_first_five() -> None:
    bank = torch.eye(3)
    found = weighted_knn(bank, torch.tensor([0, 1, 2]), bank[:1], torch.tensor([3]), 3, 0.07, 5)
    assert found == {"top1": 0.0, "top5": 0.0}


def test_more_neighbours_than_samples_is_a_sentence() -> None:
    bank, labels = clusters(100, 0)
    with pytest.raises(ContralexError, match=r"eval\.knn\.k is 200 but there are only 100 labelled training samples"):
        weighted_knn(bank, labels, bank, labels, 200, 0.07, 7)


class Rows(Split):
    def __init__(self, rows: Tensor, labels: Sequence[int] | None, broken: Sequence[int] = ()) -> None:
        super().__init__()
        self.rows = rows
        self.labels = labels
        self.broken = broken

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        if index in self.broken:
            raise Unreadable(str(index), "broken")
        return self.rows[index]


class Pair(Source):
    def __init__(self, train: Split, test: Split | None) -> None:
        self._train = train
        self._test = test

    def train(self) -> Split:
        return self._train

    def test(self) -> Split | None:
        return self._test


class AsIs(Views):
    count = 1

    def make(self, item: Any, view: int) -> Tensor:
        return torch.as_tensor(item)

    plain = lambda self, item: torch.as_tensor(item)  # noqa: E731


class Tiny(Encoder):
    """``places`` > 1: as many vectors for a view, whose mean is the view's own."""

    dim = 8

    def __init__(self, places: int = 1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.frozen = nn.BatchNorm1d(8).eval()
        self.places = places

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        assert not self.norm.training
        found = {view: -self.features(rows) for view, rows in views.items()}
        if self.places == 1:
            return found
        offsets = torch.linspace(-3, 3, self.places)[:, None]  # they sum to zero
        return {view: rows[:, None] + offsets for view, rows in found.items()}

    def features(self, view: Tensor) -> Tensor:
        assert not self.norm.training
        return self.norm(view)  # type: ignore[no-any-return]


def source(broken: Sequence[int] = ()) -> Pair:
    (bank, labels), (asked, truth) = clusters(60, 0), clusters(40, 1)
    return Pair(Rows(bank, labels.tolist(), broken), Rows(asked, truth.tolist()))


SPEC = KNNSpec(k=20)


def test_raw_pixels() -> None:
    (bank, labels), (asked, truth) = clusters(60, 0), clusters(40, 1)
    result = evaluate_knn(None, source(), AsIs(), SPEC, 16, "cpu")
    expected = weighted_knn(bank, labels, asked, truth, 20, 0.07, 7)
    assert (result.top1, result.top5) == (expected["top1"], expected["top5"])
    assert result.protocol == {
        "k": 20,
        "temperature": 0.07,
        "metric": "cosine",
        "vote": "exp(cosine/temperature)",
        "features": "pixels",
        "classes": 7,
        "train_samples": 60,
        "test_samples": 40,
    }
    assert raw_pixels(torch.zeros(2, 3, 4, 4)).shape == (2, 48)


@pytest.mark.parametrize("features", ["backbone", "embedding"])
@pytest.mark.parametrize("places", [1, 3])
def test_an_encoder_is_judged_in_eval_mode_and_left_as_it_was(features: str, places: int) -> None:
    encoder = Tiny(places).train()
    encoder.frozen.eval()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    result = evaluate_knn(encoder, source(), AsIs(), KNNSpec.model_validate({"k": 20, "features": features}), 16, "cpu")
    # A fresh norm in eval mode, a sign and the mean over places change no cosine.
    assert result.top1 == evaluate_knn(None, source(), AsIs(), SPEC, 16, "cpu").top1
    assert result.protocol["features"] == features
    assert encoder.training and encoder.norm.training and not encoder.frozen.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_samples_without_a_label_and_unreadable_ones_are_left_out() -> None:
    (bank, labels), (asked, truth) = clusters(60, 0), clusters(40, 1)
    some = [-1 if index < 10 else label for index, label in enumerate(labels.tolist())]
    found = Pair(Rows(bank, some, broken=[59]), Rows(asked, truth.tolist()))
    result = evaluate_knn(None, found, AsIs(), SPEC, 16, "cpu")
    expected = weighted_knn(bank[10:59], labels[10:59], asked, truth, 20, 0.07, 7)
    assert (result.top1, result.top5) == (expected["top1"], expected["top5"])
    assert result.protocol["train_samples"] == 49


def test_extract_says_which_items_it_could_read() -> None:
    split = Rows(torch.arange(12.0).view(6, 2), None, broken=[0, 1, 4])  # the first batch has nothing to give
    for workers in (0, 1):
        features, index = extract_features(raw_pixels, EvalDataset(split, AsIs()), 2, "cpu", workers)
    assert index.tolist() == [2, 3, 5]
    assert split.skipped == ["0", "1", "4"]
    assert torch.equal(features, split.rows[index])


def test_nothing_to_judge_with_is_said() -> None:
    bank, labels = clusters(60, 0)
    labelled = Rows(bank, labels.tolist())
    with pytest.raises(NoLabels, match="no split to evaluate on"):
        evaluate_knn(None, Pair(labelled, None), AsIs(), SPEC, 16, "cpu")
    with pytest.raises(NoLabels, match="train split has no labels"):
        evaluate_knn(None, Pair(Rows(bank, None), labelled), AsIs(), SPEC, 16, "cpu")
    with pytest.raises(NoLabels, match="test split has no labels"):
        evaluate_knn(None, Pair(labelled, Rows(bank, [-1] * 60)), AsIs(), SPEC, 16, "cpu")
