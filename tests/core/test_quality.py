"""Figures without labels, against naive loops over the formulas of their papers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.evaluation import spectra, spread


def draw(count: int, width: int, seed: int = 0) -> Tensor:
    made = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return made * torch.logspace(0, -1.5, width) + 0.3


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Z^T Z and the covariance, from blocks of unequal size."""
    count, total, products = spectra.moments(features.split(7))
    assert count == len(features)
    return products, products / count - torch.outer(total, total) / count**2


def test_moments_are_those_of_all_rows() -> None:
    features = draw(50, 6)
    products, covariance = moments(features)
    np.testing.assert_allclose(products.numpy(), (features.T @ features).numpy(), rtol=1e-5)
    np.testing.assert_allclose(covariance.numpy(), np.cov(features.T.numpy(), bias=True), atol=1e-5)


def test_rankme_is_the_entropy_of_the_singular_values() -> None:
    features = draw(60, 9)
    values = np.linalg.svd(features.double().numpy(), compute_uv=False)
    entropy = 0.0
    for value in values:
        p = value / sum(values) + 1e-7
        entropy -= p * math.log(p)
    assert spectra.rankme(moments(features)[0]) == pytest.approx(math.exp(entropy), rel=1e-6)
    assert spectra.rankme(torch.eye(5)) == pytest.approx(5, rel=1e-4)


def test_effective_rank_is_of_centred_features() -> None:
    features = draw(60, 9)
    centred = (features - features.mean(dim=0)).double().numpy()
    values = np.linalg.svd(centred, compute_uv=False)
    entropy = -sum(value / sum(values) * math.log(value / sum(values)) for value in values)
    assert spectra.effective_rank(moments(features)[1]) == pytest.approx(math.exp(entropy), rel=1e-5)
    along_a_line = torch.arange(20.0)[:, None] * torch.ones(4)
    assert spectra.effective_rank(moments(along_a_line)[1]) == pytest.approx(1, abs=1e-5)
    assert spectra.effective_rank(torch.zeros(4, 4)) == 1


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
def test_alpha_is_that_of_a_power_law(alpha: float) -> None:
    values = torch.arange(1, 61, dtype=torch.float64) ** -alpha
    turn = torch.linalg.qr(torch.randn(60, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    assert spectra.decay(turn @ values.diag() @ turn.T, 1000) == pytest.approx(alpha, abs=1e-6)


def test_alpha_is_the_weighted_fit() -> None:
    covariance = moments(draw(300, 40))[1]
    values = np.sort(np.linalg.eigvalsh(covariance.numpy()))[::-1]
    index = np.arange(4, 41)
    slope, _ = np.polyfit(np.log(index), np.log(values[index - 1]), 1, w=np.sqrt(1 / index))
    assert spectra.decay(covariance, 300) == pytest.approx(-slope, rel=1e-6)


def test_alpha_of_few_dimensions_or_samples_is_none() -> None:
    assert spectra.decay(torch.eye(8, dtype=torch.float64), 1000) is None
    assert spectra.decay(moments(draw(9, 40))[1], 9) is None


def test_lidar_is_the_naive_discriminant_analysis() -> None:
    count, draws, width, delta = 12, 5, 6, 1e-2
    middles = draw(count, width)
    groups = middles[:, None] + 0.2 * torch.randn(count, draws, width, generator=torch.Generator().manual_seed(1))
    samples = groups.double().numpy()
    overall = samples.reshape(-1, width).mean(axis=0)
    between, within = np.zeros((width, width)), np.zeros((width, width))
    for group in samples:
        mean = group.mean(axis=0)
        between += np.outer(mean - overall, mean - overall) / count
        for one in group:
            within += np.outer(one - mean, one - mean) / (count * draws)
    within += delta * np.eye(width)
    values, vectors = np.linalg.eigh(within)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    eigen = np.linalg.eigvalsh(root @ between @ root)
    p = eigen / eigen.sum() + 1e-7
    assert spectra.lidar(groups.split(5), delta) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-6)


def test_alignment_and_uniformity_are_the_naive_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "_TILE", 7)
    first, second = draw(30, 5), draw(30, 5) + 0.3 * draw(30, 5, 1)
    units = [F.normalize(each.double(), dim=1) for each in (first, second)]
    distances = [float((x - y).square().sum()) for x, y in zip(*units, strict=True)]
    assert spread.alignment(first, second) == pytest.approx(sum(distances) / 30, rel=1e-5)
    assert spread.alignment(first, 3 * first) == pytest.approx(0, abs=1e-10)
    kernels = [
        math.exp(-2 * float((units[0][i] - units[0][j]).square().sum())) for i in range(30) for j in range(30) if i != j
    ]
    assert spread.uniformity(first) == pytest.approx(math.log(sum(kernels) / len(kernels)), rel=1e-5)
    assert spread.uniformity(torch.ones(4, 3)) == pytest.approx(0, abs=1e-6)
    assert math.isnan(spread.uniformity(torch.ones(1, 3)))


def test_view_recall_is_the_naive_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "_TILE", 3)
    chance = torch.Generator().manual_seed(0)
    first = torch.randn(7, 4, generator=chance)
    second = first + torch.randn(7, 4, generator=chance)
    hits = 0
    for index in range(7):
        cosines = [float(F.cosine_similarity(first[index], other, dim=0)) for other in second]
        hits += cosines.index(max(cosines)) == index
    assert 0 < hits < 7
    assert spread.view_recall(first, second) == hits / 7
    assert spread.view_recall(first, 3 * first) == 1


def test_neighbour_overlap_is_the_naive_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "_TILE", 7)
    first, second, k = draw(30, 5), draw(30, 8, 1), 4
    near = []
    for features in (first, second):
        cosine = F.normalize(features, dim=1) @ F.normalize(features, dim=1).T
        near.append([sorted((j for j in range(30) if j != i), key=lambda j: -cosine[i, j])[:k] for i in range(30)])
    expected = sum(len(set(a) & set(b)) / k for a, b in zip(*near, strict=True)) / 30
    assert spread.neighbour_overlap(first, second, k) == pytest.approx(expected)
    assert spread.neighbour_overlap(first, 2 * first, k) == 1
