"""The images of a folder or a data set by the names that their embeddings have, for whoever wants to look at them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from contralex.api.embedding import Embeddings, Everything, root_of
from contralex.data.base import Unreadable
from contralex.errors import ContralexError
from contralex.recipes.code_files import permission
from contralex.training import build
from contralex.training.checkpoints.read import open_checkpoint

_TRIED = 20  # items, until one can be read
_NAMED = 5  # that cannot be read


class ImageItems:
    """Nothing is decoded before it is asked for."""

    def __init__(self, everything: Everything) -> None:
        self._everything = everything

    def read(self, name: str) -> Image.Image | None:
        """The image, RGB and upright; None where it cannot be read."""
        index = self._index.get(name)
        if index is None:
            return None
        try:
            image = self._everything[index]
        except Unreadable:
            return None
        return image if isinstance(image, Image.Image) else None

    def file(self, name: str) -> Path | None:
        """The image's file; None where the data set has none for it."""
        index = self._index.get(name)
        return None if index is None else self._everything.file_of(index)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {self._everything.item_name(index): index for index in range(len(self._everything))}


def open_images(run: Path, data: str | None, allow_code: bool, what: str) -> ImageItems:
    """The images of ``data``, or of the run's own. A run or data of something else are refused, by ``what`` asks for
    them, such as ``search``."""
    with permission(allow_code):
        spec = open_checkpoint(run, ()).resolved().run
        needed = spec.method.views.needs.get("data", frozenset())
        if needed and "images" not in spec.data.gives:
            raise ContralexError(
                f"{what}: {run} was trained on data of kind {spec.data.kind_name()}, and not on images"
            )
        source = build.read_source(build.evaluation_data(spec, data))
        everything = Everything(source, root_of(data))
    for index in range(min(len(everything), _TRIED)):
        try:
            item = everything[index]
        except Unreadable:
            continue
        if not isinstance(item, Image.Image):
            raise ContralexError(f"{what}: {data or 'the data of the run'} holds {source.items}, and not images")
        break
    return ImageItems(everything)


def round_cosine(cosine: float) -> float:
    """To what rounding leaves alone, so that copies of one image have one cosine, and none has more than 1."""
    return min(round(cosine, 5), 1.0)


def describe(found: Embeddings, which: str) -> dict[str, Any]:
    """What was looked at, for ``--json``."""
    return {
        "features": which,
        "images": len(found),
        "skipped": dict(found.skipped),
        "skipped_count": found.skipped_count,
    }


def describe_skipped(found: Embeddings) -> list[str]:
    """The line that names what could not be read, if there is anything."""
    if not found.skipped:
        return []
    names = [f"{name} ({reason.splitlines()[0]})" for name, reason in list(found.skipped.items())[:_NAMED]]
    more = [f"and {found.skipped_count - len(names):,} more"] if found.skipped_count > len(names) else []
    count = f"{found.skipped_count:,} images" if found.skipped_count > 1 else "1 image"
    return [f"{count} could not be read: {', '.join([*names, *more])}."]


def class_name(found: Embeddings, index: int) -> str | None:
    """The name of an image's class; None where it has none."""
    label = -1 if found.labels is None else int(found.labels[index])
    if label < 0:
        return None
    return found.classes[label] if label < len(found.classes) else str(label)
