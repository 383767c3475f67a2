"""Images of a folder that are there more than once: as copies of a file, or nearly so by the encoder of a run."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex import progress
from contralex.api import contact_sheet
from contralex.api.arguments import checked
from contralex.api.contact_sheet import Cell, Section
from contralex.api.embedding import Embeddings, embed
from contralex.api.image_items import ImageItems, class_name, describe, describe_skipped, open_images, round_cosine
from contralex.api.settings import PathLike, path_text
from contralex.errors import ContralexError
from contralex.evaluation.features import Which
from contralex.evaluation.grouping import join_pairs, list_groups
from contralex.evaluation.neighbours import find_pairs
from contralex.training import devices

_SHOWN = 10  # groups that are printed


@dataclass(frozen=True)
class DuplicateImage:
    """An image of a group. ``cosine``: with the group's first image. ``copy_of``: the first path of the group that has
    the same content, byte by byte; None where it is the first of its content."""

    path: str
    cosine: float
    copy_of: str | None = None
    class_name: str | None = None


@dataclass(frozen=True, repr=False)
class Duplicates:
    """Groups of images that are copies or nearly so, the largest group first. It prints as a few lines.

    In each group the first image is the one with the largest file, of equal ones the first by path. ``copies``: how
    many images could go because another file has the same content. ``embeddings``: of the images that were compared,
    with what could not be read. ``which``: the features by which they were compared.
    """

    groups: list[list[DuplicateImage]]
    threshold: float
    which: Which
    embeddings: Embeddings
    images: ImageItems = field(repr=False, compare=False)

    @property
    def copies(self) -> int:
        return sum(each.copy_of is not None for group in self.groups for each in group)

    @property
    def surplus(self) -> int:
        """Images beside the first of each group."""
        return sum(len(group) - 1 for group in self.groups)

    def save_picture(self, path: PathLike) -> Path:
        """Draw the groups into a ``.png``, ``.jpg`` or ``.html`` file. Returns its path."""
        return contact_sheet.save(path, self.headline(), self._sections())

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "threshold": self.threshold,
            **describe(self.embeddings, self.which),
            "copies": self.copies,
            "surplus": self.surplus,
            "groups": [
                [
                    {"path": each.path, "cosine": each.cosine, "copy_of": each.copy_of, "class": each.class_name}
                    for each in group
                ]
                for group in self.groups
            ],
        }

    def rows(self) -> list[list[str]]:
        """The table: group, cosine, path, class, and a note."""
        return [
            [str(number), f"{each.cosine:.3f}", each.path, each.class_name or "", _note(each)]
            for number, group in enumerate(self.groups, 1)
            for each in group
        ]

    def _sections(self) -> Iterator[Section]:
        for number, group in enumerate(self.groups, 1):
            cells = [
                Cell(each.path, f"{each.cosine:.3f} {_note(each)}", partial(self.images.read, each.path), marked=not at)
                for at, each in enumerate(group)
            ]
            yield Section(f"Group {number}: {len(group):,} images", cells)

    def headline(self) -> str:
        copies = f", {self.copies:,} of them exact copies" if self.copies else ""
        return (
            f"{len(self.groups):,} groups of duplicates among {len(self.embeddings):,} images (a cosine of at least "
            f"{self.threshold:g} between {self.which} features); {self.surplus:,} images beside the first of "
            f"each{copies}"
        )

    def below(self) -> list[str]:
        """The sentences under the table."""
        return describe_skipped(self.embeddings)

    def __repr__(self) -> str:
        lines = [self.headline()]
        for number, group in enumerate(self.groups[:_SHOWN], 1):
            lines.append(f"{number}: {len(group):,} images")
            lines += [f"  {each.cosine:.3f}  {each.path}  {_note(each)}".rstrip() for each in group[:_SHOWN]]
            lines += [f"  ... and {len(group) - _SHOWN:,} more"] * (len(group) > _SHOWN)
        if len(self.groups) > _SHOWN:
            lines.append(f"... and {len(self.groups) - _SHOWN:,} more groups")
        return "\n".join([*lines, *self.below()])


def _note(image: DuplicateImage) -> str:
    return "" if image.copy_of is None else "exact copy"


@checked
def duplicates(
    run: PathLike,
    data: PathLike | None = None,
    *,
    threshold: float = 0.95,
    which: Which = "backbone",
    batch_size: int | None = None,
    allow_code: bool = False,
) -> Duplicates:
    """Groups of near-duplicate images of a folder: those that are linked by cosines of at least ``threshold``.

    ``data``: a folder, or a kind such as ``cifar10``; without it, the run's own data. ``which``: the ``backbone``'s
    features, or the ``embedding`` behind the projector. Files with the same content are found first, by their SHA-256.
    All pairs of images are compared, block by block: time grows with the square of their number, memory does not.
    Which cosine means "the same picture" depends on the encoder: look at the picture, and move the threshold.

    >>> import contralex
    >>> found = contralex.duplicates("runs/my-run", "photos", threshold=1.0)
    >>> len(found.embeddings), found.copies
    (6, 0)
    """
    if not -1 <= threshold <= 1:
        raise ContralexError(f"duplicates: threshold is {threshold:g}, and a cosine lies between -1 and 1")
    with progress.listening("stderr"):
        items = open_images(Path(run), path_text(data), allow_code, "duplicates")
        found = embed(run, data, which=which, batch_size=batch_size, allow_code=allow_code)
        files = [items.file(path) for path in found.paths]
        copies = _copies(files)
        exact = torch.tensor(list(copies.items()), dtype=torch.long).view(-1, 2).unbind(1)
        near = find_pairs(found.features, threshold, device=devices.to_evaluate_on())
        first = join_pairs(len(found), chain([(exact[0], exact[1])], near))
    return Duplicates(
        [_group(found, files, copies, index) for index in list_groups(first)],
        threshold,
        which,
        found,
        items,
    )


def _copies(files: Sequence[Path | None]) -> dict[int, int]:
    """For each file whose content an earlier one has: the index of the earlier one. Only files of one size are read."""
    by_size: dict[int, list[tuple[int, Path]]] = defaultdict(list)
    for index, file in enumerate(files):
        if file is not None:
            by_size[_size(file)].append((index, file))
    alike = [same for size, same in by_size.items() if size > 0 and len(same) > 1]
    found: dict[int, int] = {}
    for same in progress.steps("Comparing files of equal size", alike, len(alike)):
        seen: dict[bytes, int] = {}
        for index, file in same:
            earlier = seen.setdefault(_digest(file), index)
            if earlier != index:
                found[index] = earlier
    return found


def _group(
    found: Embeddings, files: Sequence[Path | None], copies: dict[int, int], index: Tensor
) -> list[DuplicateImage]:
    """The images of a group, the one with the largest file first, then by cosine with it."""
    members = index.tolist()
    best = max(members, key=lambda each: (_size(files[each]), -each))
    unit = F.normalize(found.features[index].float(), dim=1)
    cosines = dict(zip(members, map(round_cosine, (unit @ unit[members.index(best)]).tolist()), strict=True))
    members.sort(key=lambda each: (each != best, -cosines[each], each))
    return [
        DuplicateImage(
            found.paths[each],
            cosines[each],
            found.paths[copies[each]] if each in copies else None,
            class_name(found, each),
        )
        for each in members
    ]


def _size(file: Path | None) -> int:
    """Bytes; -1 where there is no file."""
    try:
        return -1 if file is None else file.stat().st_size
    except OSError:  # it was removed meanwhile
        return -1


def _digest(file: Path) -> bytes:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()
