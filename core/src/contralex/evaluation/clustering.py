"""Clusters of features by scikit-learn, and how well they agree with classes.

Features are brought to length 1, so that the squared distance of two is 2 - 2 · cosine. What does not grow with the
number of rows: k-means is fitted to a random sample of 20,000 rows, and every row belongs to the nearest centre.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from contralex import progress
from contralex.errors import ContralexError, remedy

SAMPLE = 20_000  # rows that k-means is fitted to
_JUDGED = 2000  # rows by which the number of clusters is chosen
COUNTS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 50)
HDBSCAN_MOST = 50_000  # rows; time grows with the square of their number
_COMPONENTS = 50  # to which HDBSCAN's features are reduced
_ROWS = 16_384  # that are assigned at a time


@dataclass(frozen=True)
class Assignment:
    """``cluster`` (N,): the number of each row's cluster, the largest cluster is 0; -1 for none. ``cosine`` (N,): with
    the cluster's centre, the mean of its unit vectors. ``protocol``: how it was done."""

    cluster: Tensor
    cosine: Tensor
    protocol: dict[str, Any]

    @property
    def count(self) -> int:
        return int(self.cluster.max()) + 1


@torch.no_grad()
def find_k_means(features: Tensor, clusters: int | None, seed: int = 0) -> Assignment:
    """Clusters of features (N, F) by k-means. ``clusters``: how many; None: that of 2, 3, 4, 5, 6, 8, 10, 12, 16, 20,
    24, 32, 40, 50 whose mean silhouette (Rousseeuw, 1987), by cosine and over at most 2,000 rows, is highest."""
    rows = _sample(len(features), SAMPLE, seed)
    points = _unit(features[rows])
    protocol: dict[str, Any] = {"method": "k-means", "seed": seed, "metric": "cosine"}
    if len(rows) < len(features):
        protocol["fitted_to"] = len(rows)
    if clusters is None:
        clusters, silhouettes = _choose(points, seed)
        protocol |= {"clusters": clusters, "chosen_by": "silhouette", "silhouettes": silhouettes}
    else:
        protocol["clusters"] = clusters
    if clusters > len(rows):
        raise ContralexError(
            f"cluster: {clusters} clusters of {len(rows)} images; ask for at most as many as there are images:"
            + remedy("--clusters", len(rows))
        )
    with progress.during(f"Finding {clusters} clusters"):
        centres = torch.from_numpy(_k_means(points, clusters, seed, starts=10).cluster_centers_)
    nearest = torch.cat(
        [(block @ centres.T - centres.square().sum(dim=1) / 2).argmax(dim=1) for block in _unit_blocks(features)]
    )
    return _ordered(features, nearest, protocol)


@torch.no_grad()
def find_hdbscan(features: Tensor, smallest: int = 5, seed: int = 0) -> Assignment:
    """Clusters of features (N, F) by HDBSCAN (Campello et al., 2013), which finds their number, and leaves out what is
    in no dense region. ``smallest``: rows of a cluster, at least. The unit vectors are reduced to at most 50 principal
    components first."""
    if len(features) > HDBSCAN_MOST:
        raise ContralexError(
            f"cluster: HDBSCAN compares all pairs, and takes at most {HDBSCAN_MOST:,} images; there are "
            f"{len(features):,}. k-means takes any number:{remedy('--by', 'kmeans')}"
        )
    protocol: dict[str, Any] = {"method": "HDBSCAN", "min_size": smallest, "metric": "cosine"}
    if len(features) < max(smallest, 2):
        return _ordered(features, torch.full((len(features),), -1), protocol)
    points = _unit(features)
    components = min(_COMPONENTS, len(points) - 1, points.shape[1])
    if components < points.shape[1]:
        decomposition = import_scikit_learn("decomposition")
        points = torch.from_numpy(decomposition.PCA(components, random_state=seed).fit_transform(points.numpy()))
        protocol["principal_components"] = components
    with progress.during("Finding clusters by HDBSCAN"):
        found = import_scikit_learn("cluster").HDBSCAN(min_cluster_size=smallest, copy=True).fit_predict(points.numpy())
    return _ordered(features, torch.as_tensor(found, dtype=torch.long), protocol)


def measure_agreement(cluster: Tensor, labels: Tensor) -> dict[str, float] | None:
    """How well clusters (N,) agree with classes (N,), over the rows that have both; -1 stands for none. None where no
    row has both.

    ``nmi``: normalised mutual information. ``ari``: adjusted Rand index. ``purity``: the fraction of rows whose class
    is the most frequent one of their cluster. ``images``: over how many.
    """
    both = (cluster >= 0) & (labels >= 0)
    if not bool(both.any()):
        return None
    metrics = import_scikit_learn("metrics")
    clusters, classes = cluster[both].numpy(), labels[both].numpy()
    table = metrics.cluster.contingency_matrix(classes, clusters)
    return {
        "nmi": float(metrics.normalized_mutual_info_score(classes, clusters)),
        "ari": float(metrics.adjusted_rand_score(classes, clusters)),
        "purity": float(table.max(axis=0).sum() / table.sum()),
        "images": int(both.sum()),
    }


def _choose(points: Tensor, seed: int) -> tuple[int, dict[int, float]]:
    """The number of clusters with the highest silhouette, of equal ones the smallest, and the silhouettes of all."""
    points = points[_sample(len(points), _JUDGED, seed)]
    counts = [count for count in COUNTS if count < len(points)]
    if len(torch.unique(points, dim=0)) < 3:
        return 1, {}
    metrics = import_scikit_learn("metrics")
    found: dict[int, float] = {}
    for count in progress.steps("Choosing the number of clusters", counts, len(counts)):
        labels = _k_means(points, count, seed, starts=4).labels_
        if len(set(labels)) > 1:
            found[count] = round(float(metrics.silhouette_score(points.numpy(), labels, metric="cosine")), 4)
    return max(found, key=lambda count: (found[count], -count)), found


def _k_means(points: Tensor, clusters: int, seed: int, starts: int) -> Any:
    cluster = import_scikit_learn("cluster")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where fewer points differ than clusters are asked for
        return cluster.KMeans(clusters, n_init=starts, random_state=seed).fit(points.numpy())


def _ordered(features: Tensor, found: Tensor, protocol: dict[str, Any]) -> Assignment:
    """With the clusters numbered by their size, of equal ones by their first row; and each row's cosine."""
    names, firsts, sizes = np.unique(found[found >= 0].numpy(), return_index=True, return_counts=True)
    order = np.lexsort((firsts, -sizes))
    number = torch.full((int(names.max(initial=-1)) + 2,), -1)
    number[torch.from_numpy(names[order])] = torch.arange(len(names))
    cluster = number[found]  # the last stands for -1
    sums = torch.zeros(len(names) + 1, features.shape[1])
    for part, block in zip(cluster.split(_ROWS), _unit_blocks(features), strict=True):
        sums.index_add_(0, part % len(sums), block)
    centres = F.normalize(sums, dim=1)
    parts = zip(cluster.split(_ROWS), _unit_blocks(features), strict=True)
    return Assignment(cluster, torch.cat([(block * centres[part]).sum(dim=1) for part, block in parts]), protocol)


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.float(), dim=1)


def _unit_blocks(features: Tensor) -> Iterator[Tensor]:
    return (_unit(features[start : start + _ROWS]) for start in range(0, len(features), _ROWS))


def _sample(count: int, most: int, seed: int) -> Tensor:
    """(n,) the rows that stand for all: all, or a random sample in ascending order."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most].sort().values


def import_scikit_learn(module: str) -> Any:
    """A module of scikit-learn, which is an extra."""
    try:
        return import_module(f"sklearn.{module}")
    except ImportError:
        raise ContralexError(
            "clusters are found by scikit-learn, which is not installed:"
            + remedy("pip", "install", "contralex[clusters]")
        ) from None
