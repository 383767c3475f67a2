"""Clusters of the images of a folder, by the encoder of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from contralex import progress
from contralex.api import contact_sheet
from contralex.api.arguments import checked
from contralex.api.contact_sheet import Cell, Section
from contralex.api.embedding import Embeddings, embed
from contralex.api.image_items import ImageItems, class_name, describe, describe_skipped, open_images
from contralex.api.settings import PathLike, path_text
from contralex.errors import ContralexError, remedy
from contralex.evaluation.clustering import (
    Assignment,
    find_hdbscan,
    find_k_means,
    import_scikit_learn,
    measure_agreement,
)
from contralex.evaluation.features import Which

By = Literal["kmeans", "hdbscan"]

_SHOWN = 20  # clusters that are printed
_EXAMPLES = 16  # of a cluster that are kept
_CLASSES = 3  # of a cluster that are named
_MIN_SIZE = 5  # of a cluster of HDBSCAN


@dataclass(frozen=True)
class Cluster:
    """``size``: how many images. ``examples``: the paths nearest to the centre, with their cosine, the nearest first.
    ``classes``: how many images of each class, the most frequent first."""

    number: int
    size: int
    examples: list[tuple[str, float]]
    classes: dict[str, int]


@dataclass(frozen=True, repr=False)
class Clusters:
    """Clusters of images, the largest first. It prints as a table.

    ``of``: for each path the number of its cluster, from 0 on, or -1 where it is in none. ``agreement`` with the
    class folders: ``nmi``, ``ari``, ``purity``, and over how many ``images``; None where there are no classes.
    ``protocol``: how they were found. ``embeddings``: of the images, with what could not be read.
    """

    clusters: list[Cluster]
    of: dict[str, int]
    agreement: dict[str, float] | None
    protocol: dict[str, Any]
    which: Which
    embeddings: Embeddings
    images: ImageItems = field(repr=False, compare=False)

    @property
    def unclustered(self) -> int:
        """Images that are in no cluster, as HDBSCAN leaves some out."""
        return sum(number < 0 for number in self.of.values())

    def save_picture(self, path: PathLike) -> Path:
        """Draw the images nearest to each centre into a ``.png``, ``.jpg`` or ``.html`` file. Returns its path."""
        return contact_sheet.save(path, self.headline(), self._sections())

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            **describe(self.embeddings, self.which),
            "protocol": self.protocol,
            "agreement": self.agreement,
            "unclustered": self.unclustered,
            "clusters": [
                {
                    "number": each.number,
                    "size": each.size,
                    "classes": each.classes,
                    "examples": [{"path": path, "cosine": cosine} for path, cosine in each.examples],
                }
                for each in self.clusters
            ],
            "of": self.of,
        }

    def rows(self) -> list[list[str]]:
        """The table: number, size, classes, and the example nearest to the centre."""
        return [
            [str(each.number), f"{each.size:,}", _named(each.classes), ", ".join(path for path, _ in each.examples[:2])]
            for each in self.clusters
        ]

    def headline(self) -> str:
        how = "found by HDBSCAN" if self.protocol["method"] == "HDBSCAN" else "found by k-means"
        if "chosen_by" in self.protocol:
            how += ", their number chosen by the silhouette"
        return f"{len(self.clusters):,} clusters of {len(self.of):,} images, {how}"

    def below(self) -> list[str]:
        """The sentences under the table."""
        lines = []
        if self.unclustered:
            lines.append(f"{self.unclustered:,} images are in no cluster.")
        if self.agreement is not None:
            figures = ", ".join(f"{label} {self.agreement[name]:.3f}" for name, label in _FIGURES.items())
            lines.append(f"Agreement with the classes over {self.agreement['images']:,} images: {figures}.")
        return [*lines, *describe_skipped(self.embeddings)]

    def _sections(self) -> Iterator[Section]:
        for each in self.clusters:
            cells = [Cell(path, f"{cosine:.3f}", partial(self.images.read, path)) for path, cosine in each.examples[:8]]
            classes = f" ({_named(each.classes)})" if each.classes else ""
            yield Section(f"Cluster {each.number}: {each.size:,} images{classes}", cells)

    def __repr__(self) -> str:
        lines = [self.headline()]
        for number, size, classes, examples in self.rows()[:_SHOWN]:
            lines.append("  ".join(part for part in (f"{number}: {size} images", classes, examples) if part))
        if len(self.clusters) > _SHOWN:
            lines.append(f"... and {len(self.clusters) - _SHOWN:,} more clusters")
        return "\n".join([*lines, *self.below()])


_FIGURES = {"nmi": "NMI", "ari": "ARI", "purity": "purity"}


def _named(classes: dict[str, int]) -> str:
    total = sum(classes.values())
    names = [f"{name} {count / total:.0%}" for name, count in list(classes.items())[:_CLASSES]]
    return ", ".join([*names, *(["..."] if len(classes) > _CLASSES else [])])


@checked
def cluster(
    run: PathLike,
    data: PathLike | None = None,
    *,
    clusters: int | None = None,
    by: By = "kmeans",
    min_size: int | None = None,
    seed: int = 0,
    which: Which = "backbone",
    batch_size: int | None = None,
    allow_code: bool = False,
) -> Clusters:
    """Clusters of the images of a folder, by the cosine of their features.

    ``data``: a folder, or a kind such as ``cifar10``; without it, the run's own data. ``by``: ``kmeans``, or
    ``hdbscan``, which finds the number of clusters itself, leaves out what is in none, and takes ``min_size``, the
    images of a cluster at least; without it, 5. ``clusters``: how many for k-means; without it, the number among 2, 3,
    4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40 and 50 with the highest mean silhouette over at most 2,000 images. Classes
    are not looked at; where the folder has some, ``agreement`` compares with them. Beyond 20,000 images k-means is
    fitted to a random sample of 20,000. Needs scikit-learn (``pip install 'contralex[clusters]'``).

    >>> import contralex
    >>> found = contralex.cluster("runs/my-run", "photos", clusters=2)
    >>> sum(each.size for each in found.clusters)
    6
    """
    _check(clusters, by, min_size)
    import_scikit_learn("cluster")  # before anything is computed
    with progress.listening("stderr"):
        items = open_images(Path(run), path_text(data), allow_code, "cluster")
        found = embed(run, data, which=which, batch_size=batch_size, allow_code=allow_code)
        if by == "kmeans":
            assigned = find_k_means(found.features, clusters, seed)
        else:
            assigned = find_hdbscan(found.features, min_size or _MIN_SIZE, seed)
    return Clusters(
        [_cluster(found, assigned, number) for number in range(assigned.count)],
        dict(zip(found.paths, assigned.cluster.tolist(), strict=True)),
        None if found.labels is None else measure_agreement(assigned.cluster, found.labels),
        assigned.protocol,
        which,
        found,
        items,
    )


def _check(clusters: int | None, by: str, min_size: int | None) -> None:
    if by not in ("kmeans", "hdbscan"):
        raise ContralexError(f"cluster: by is {by!r}, and must be 'kmeans' or 'hdbscan'")
    if by == "hdbscan" and clusters is not None:
        raise ContralexError("cluster: HDBSCAN finds the number of clusters itself; leave --clusters out")
    if by == "kmeans" and min_size is not None:
        raise ContralexError(
            "cluster: the smallest size of a cluster is HDBSCAN's; leave --min-size out, or find clusters by it:"
            + remedy("--by", "hdbscan")
        )
    if clusters is not None and clusters < 1:
        raise ContralexError(f"cluster: {clusters} clusters are asked for; ask for at least 1")
    if min_size is not None and min_size < 2:
        raise ContralexError(f"cluster: min_size is {min_size}; a cluster has at least 2 images")


def _cluster(found: Embeddings, assigned: Assignment, number: int) -> Cluster:
    members = (assigned.cluster == number).nonzero().flatten()
    nearest = members[assigned.cosine[members].argsort(descending=True, stable=True)][:_EXAMPLES].tolist()
    classes = Counter(name for index in members.tolist() if (name := class_name(found, index)) is not None)
    examples = [(found.paths[index], float(assigned.cosine[index])) for index in nearest]
    return Cluster(number, len(members), examples, dict(sorted(classes.items(), key=lambda each: (-each[1], each[0]))))
