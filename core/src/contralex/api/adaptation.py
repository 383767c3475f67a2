"""What an adaptation found at each of its evaluations, and what follows from it. No torch."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from contralex.errors import ContralexError
from contralex.files import read_json

ADAPTATION = "adaptation.json"
PUBLISHED, ADAPTED = "published", "adapted"
KNN = "knn_top1"
_DECIDE = (KNN, "lidar", "rankme")  # the first that there is; random views of masked images are no images
_LOWER = frozenset({"alignment", "uniformity"})  # of these, less is better
_WORDS = {
    KNN: "kNN top-1",
    "lidar": "LiDAR",
    "rankme": "RankMe",
    "view_recall": "view recall",
    "alignment": "alignment",
    "uniformity": "uniformity",
}
FIGURES = tuple(_WORDS)
_PERCENT = frozenset({KNN, "view_recall"})


@dataclass(frozen=True)
class Evaluated:
    """One evaluation: after ``epoch`` epochs, 0 of the untouched weights. ``checkpoint``: below the adaptation's
    folder. ``test_samples``: images that kNN classified; 0 without labels."""

    epoch: int
    step: int
    checkpoint: str
    figures: dict[str, float | None]
    test_samples: int = 0


@dataclass(frozen=True)
class Plan:
    """What an adaptation was asked for, as ``adaptation.json`` keeps it for a resume."""

    encoder: str
    recipe: str
    weights: str
    data: str
    sets: list[str]
    every: int
    patience: int
    by: str | None


@dataclass(frozen=True, repr=False)
class Adapted(os.PathLike[str]):
    """What :func:`contralex.adapt` found. It prints as a table and a few sentences.

    ``folder``: holds the untouched weights in ``published``, and the run in ``adapted``, both of which
    :func:`contralex.open` opens. ``rows``: the evaluations, the first of the untouched weights. ``stopped``: whether it
    ended before its last epoch. As a path, it is the checkpoint to use.

    >>> import contralex
    >>> found = contralex.adapt("dino-vits16", "photos", epochs=10)
    >>> backbone = contralex.load_backbone(found) if found.helped else None
    """

    folder: Path
    plan: Plan
    rows: list[Evaluated] = field(default_factory=list)
    stopped: bool = False

    def __fspath__(self) -> str:
        return os.fspath(self.folder / self.best.checkpoint)

    @property
    def by(self) -> str:
        """The figure that decides: kNN where the images have labels; else LiDAR, or RankMe where the method's views
        are not shaped as images."""
        there = (name for name in _DECIDE if self.rows[0].figures.get(name) is not None)
        return self.plan.by or next(there, KNN)

    @property
    def best(self) -> Evaluated:
        """The best evaluation; of equals, the earlier one."""
        return max(self.rows, key=lambda row: (self._value(row), -row.epoch))

    @property
    def helped(self) -> bool:
        """Whether a checkpoint is better than the untouched weights."""
        return self.best.epoch > 0

    @property
    def no_longer_helps(self) -> bool:
        """Whether as many evaluations as the patience allows have come after the best one."""
        return sum(row.epoch > self.best.epoch for row in self.rows) >= self.plan.patience

    def sentences(self) -> list[str]:
        """What came of it, and which checkpoint to use."""
        first, best, last = self.rows[0], self.best, self.rows[-1]
        name, use = _WORDS[self.by], self.folder / best.checkpoint
        said = []
        if self.no_longer_helps:
            since = f"since epoch {best.epoch}" if best.epoch else "since the untouched weights"
            count = sum(row.epoch > best.epoch for row in self.rows)
            end = "It stopped there" if self.stopped else "It ended there"
            said.append(f"{end}, after epoch {last.epoch}: {name} has not become better {since}, {count} evaluations.")
        elif best is last and len(self.rows) > 1:
            said.append(f"{name} was still becoming better at the end, epoch {last.epoch}: more epochs may help.")
        if not self.helped:
            said.append(
                f"Adapting did not help: no checkpoint is better than the untouched weights ({name} "
                f"{_shown(self.by, first)}). Use these: {use}"
            )
            return said
        said.append(
            f"Use epoch {best.epoch}: {name} {_shown(self.by, first)} → {_shown(self.by, best)}. It is in {use}"
        )
        margin = _chance(first, best) if self.by == KNN else 0.0
        if margin and self._value(best) - self._value(first) < margin:
            said.append(
                f"With {best.test_samples:,} test images, a difference below {100 * margin:.1f} points may be chance."
            )
        rank = [row.figures.get("rankme") for row in (first, best)]
        if rank[0] is not None and rank[1] is not None and rank[1] < rank[0] / 2:
            said.append(
                f"Its features use fewer directions (RankMe {rank[0]:.3g} → {rank[1]:.3g}): for other tasks than "
                "these images, compare it with the untouched weights."
            )
        return said

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The headings, and the cells of each evaluation."""
        known = [name for name in FIGURES if any(row.figures.get(name) is not None for row in self.rows)]
        rows = [
            ["untouched" if row.epoch == 0 else f"epoch {row.epoch}", *(_shown(name, row) for name in known)]
            for row in self.rows
        ]
        return ["", *(_WORDS[name] for name in known)], rows

    def to_dict(self) -> dict[str, Any]:
        """What ``adaptation.json`` holds."""
        return {
            **asdict(self.plan),
            "decided_by": self.by if self.rows else None,
            "rows": [asdict(row) for row in self.rows],
            "best": self.best.checkpoint if self.rows else None,
            "helped": self.helped if self.rows else None,
            "stopped": self.stopped,
            "sentences": self.sentences() if self.rows else [],
        }

    @classmethod
    def read(cls, folder: Path) -> Adapted:
        file = folder / ADAPTATION
        try:
            found = read_json(file)
            plan = Plan(**{name: found[name] for name in Plan.__dataclass_fields__})
            return cls(folder, plan, [Evaluated(**row) for row in found["rows"]], found["stopped"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ContralexError(
                f"--resume: {file} cannot be read ({getattr(error, 'strerror', None) or error}); give the folder of an "
                "adaptation with --out"
            ) from None

    def _value(self, row: Evaluated) -> float:
        value = row.figures.get(self.by)
        if value is None:
            return -math.inf
        return -value if self.by in _LOWER else value

    def __repr__(self) -> str:
        headings, rows = self.table()
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in [headings, *rows]
        ]
        return "\n".join([f"{self.plan.encoder}, adapted by {self.plan.recipe}", *lines, *self.sentences()])


def _chance(*rows: Evaluated) -> float:
    """Two standard errors of the difference of accuracies on so many test images, as if they were independent."""
    return 2 * math.sqrt(
        sum((value := float(row.figures[KNN] or 0)) * (1 - value) / max(row.test_samples, 1) for row in rows)
    )


def _shown(name: str, row: Evaluated) -> str:
    value = row.figures.get(name)
    if value is None:
        return "-"
    return f"{value:.1%}" if name in _PERCENT else f"{value:.3g}"


def intervals(epochs: int, every: int) -> Sequence[int]:
    """The epochs after which there is an evaluation; the last is one of them."""
    return [*range(every, epochs, every), epochs]
