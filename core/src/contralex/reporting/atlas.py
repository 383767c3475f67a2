"""The map as a table, with the columns that Apple's embedding-atlas reads (MIT, github.com/apple/embedding-atlas)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from contralex.data.base import Split
from contralex.reporting.samples import read_images
from contralex.reporting.thumbnails import shrink

_SIDE = 64  # pixels of a thumbnail's longer side


@dataclass(frozen=True)
class Atlas:
    """A row for each image of a map: ``points`` (N, 2), its path, its class (None: there are none), its neighbours'
    rows and distances (1 − cosine) (N, k)."""

    points: Tensor
    paths: Sequence[str]
    classes: Sequence[str] | None
    neighbours: Tensor
    distances: Tensor
    split: Split
    indices: Sequence[int]

    def columns(self) -> dict[str, list[Any]]:
        """By names: ``projection_x``, ``projection_y``, ``neighbors`` (``ids`` and ``distances``), ``image`` (``bytes``
        of a JPEG), ``path``, and where there are classes ``class``."""
        found: dict[str, list[Any]] = {
            "path": list(self.paths),
            "projection_x": self.points[:, 0].tolist(),
            "projection_y": self.points[:, 1].tolist(),
            "neighbors": [
                {"ids": rows, "distances": distances}
                for rows, distances in zip(self.neighbours.tolist(), self.distances.tolist(), strict=True)
            ],
            "image": [{"bytes": data} for data in self._thumbnails()],
        }
        return {**found, "class": list(self.classes)} if self.classes is not None else found

    def _thumbnails(self) -> Iterator[bytes]:
        for image in read_images(self.split, self.indices):
            file = io.BytesIO()
            shrink(image, _SIDE).save(file, "jpeg", quality=75)
            yield file.getvalue()
