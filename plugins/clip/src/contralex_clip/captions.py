"""Images with captions: beside them in a folder, in a table, or made up for digits.

An item is an image whose ``info["caption"]`` is its caption, so that it is also data for methods of images alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from contralex import ContralexError, Source, Split, Unreadable
from contralex.data import folder, images
from contralex.data.base import Subset, printable
from contralex.data.digits import DigitsSource
from contralex.data.folder import FolderSource, FolderSplit
from contralex.data.layout import role_of
from contralex.errors import remedy
from contralex.files import expanded
from contralex.vocabulary.datasets import Digits, ImageFolder
from contralex_clip import tables

if TYPE_CHECKING:
    from contralex_clip import data_spec as specs

_THREADS = 16  # for files' headers: mostly waiting for the disk
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = (
    "a handwritten {}",
    "the digit {}",
    "a picture of the number {}",
    "they wrote a {}",
    "this is a {}",
    "a small drawing of a {}",
    "the figure {} in ink",
    "{}",
)


def source_of(spec: specs.ImageCaptions) -> Source:
    return TableSource(spec) if spec.is_table else CaptionFolderSource(spec)


# A folder


class CaptionFolderSource(Source):
    """A folder's images, read and split as ``image_folder`` does. Those without a caption are named and left out."""

    items = "images with captions"

    def __init__(self, spec: specs.ImageCaptions) -> None:
        shared = {field: getattr(spec, field) for field in ("root", "labels", "held_out", "max_pixels")}
        found = FolderSource(ImageFolder(**shared))
        self.notes = found.notes
        self._train = _captioned(found.train())
        judged = found.test()
        self._test = None if judged is None else _captioned(judged)

    def train(self) -> Split:
        return self._train

    def test(self) -> Split | None:
        return self._test


class CaptionFolderSplit(Subset):
    """Those of a folder's images that have a caption beside them."""

    def __init__(self, split: FolderSplit, indices: Sequence[int]) -> None:
        super().__init__(split, indices)
        self.paths = [split.paths[index] for index in indices]

    def __getitem__(self, index: int) -> Image.Image:
        image: Image.Image = super().__getitem__(index)
        return with_caption(image, _read_text(_caption_of(self.paths[index])))


def _captioned(split: Split) -> CaptionFolderSplit:
    assert isinstance(split, FolderSplit)
    with ThreadPoolExecutor(_THREADS) as pool:
        there = list(pool.map(lambda path: _caption_of(path).is_file(), split.paths))
    if not any(there):
        raise ContralexError(
            f"data.root {split.root} has {len(split)} images, and none has a caption; put the caption of "
            f"{split.paths[0].name} beside it, as {_caption_of(split.paths[0]).name}."
        )
    for path, has_one in zip(split.paths, there, strict=True):
        if not has_one:
            split.skip(str(path), f"there is no {_caption_of(path).name} beside it")
    return CaptionFolderSplit(split, [index for index, has_one in enumerate(there) if has_one])


def _caption_of(image: Path) -> Path:
    return image.with_suffix(".txt")


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(str(path), str(getattr(error, "strerror", None) or error)) from error


# A table


class TableSource(Source):
    """A table's lines, or those of its training split: where the table has a column for it, no other is trained on."""

    items = "images with captions"

    def __init__(self, spec: specs.ImageCaptions) -> None:
        path = expanded(spec.root)
        parts = _by_split(tables.read(path, spec, "root"), printable(path))
        train, test, self.notes = parts
        self._train = TableSplit(path, spec, train, "root")
        self._test: TableSplit | None = None
        if spec.test is not None:
            other = expanded(spec.test)
            self._test = TableSplit(other, spec, tables.read(other, spec, "test"), "test", self._train.classes)
            self._test.origin = printable(other.name)
        elif test:
            self._test = TableSplit(path, spec, test, "root", self._train.classes)
            self._test.origin = f"{spec.split} {test[0].split}"
        if self._test is not None:
            self._train.skipped += self._test.skipped
            self._test.skipped = self._train.skipped  # one count for both

    def train(self) -> Split:
        return self._train

    def test(self) -> Split | None:
        return self._test


def _by_split(rows: Sequence[tables.Row], name: str) -> tuple[list[tables.Row], list[tables.Row], list[str]]:
    """The lines to train on, those to evaluate on, and what is left out. A line without a split is to train on."""
    by_split: dict[str, list[tables.Row]] = defaultdict(list)
    for row in rows:
        by_split[row.split].append(row)
    roles = {split: role_of(split) for split in by_split if split}
    train = [row for row in rows if not row.split or (roles[row.split] or ("train",))[0] == "train"]
    if not train:
        raise ContralexError(
            f"{name} has the splits {', '.join(map(printable, sorted(roles)))}, and no line to train on; name those "
            f"train. To train on every line:{remedy('--set', 'data.split=null')}"
        )
    judged = sorted((role[0] != "val", split) for split, role in roles.items() if role and role[0] != "train")
    notes = [f"split {printable(split)} ({len(by_split[split]):,}) is left out" for _, split in judged[1:]]
    return train, by_split[judged[0][1]] if judged else [], notes


class TableSplit(Split):
    """A line of a table is a sample.

    Images that are missing, whose header is no image's, or that have no caption, and lines that are damaged, are named
    and left out.
    """

    def __init__(
        self,
        path: Path,
        spec: specs.ImageCaptions,
        rows: Sequence[tables.Row],
        field: str,
        known: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self._max_pixels = spec.max_pixels
        files = [path.parent / row.image for row in rows]
        with ThreadPoolExecutor(_THREADS) as pool:
            faults = list(pool.map(partial(_fault, spec.max_pixels), files, rows))
        for file, row, fault in zip(files, rows, faults, strict=True):
            if fault is not None:
                self.skip(f"{path}, line {row.line}" if row.fault else str(file), fault)
        keep = [index for index, fault in enumerate(faults) if fault is None]
        if not keep:
            raise ContralexError(
                f"data.{field} {printable(path)} has {len(rows)} lines, and none that can be used; "
                f"line {rows[0].line}, {printable(files[0].name)}: {faults[0]}"
            )
        self.paths = [files[index] for index in keep]
        self.captions = [rows[index].caption for index in keep]
        if spec.label is not None:
            names = [rows[index].label for index in keep]
            self.classes = known or sorted({name for name in names if name})
            number = {name: label for label, name in enumerate(self.classes)}
            if strange := sorted({name for name in names if name} - number.keys()):
                raise ContralexError(
                    f"data.{field} {printable(path)} has the label {strange[0]}, and the lines to train on have no "
                    "such label; give both the same labels."
                )
            self.labels = [number.get(name, -1) for name in names]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image:
        return with_caption(images.read(self.paths[index], self._max_pixels), self.captions[index])


def _fault(max_pixels: int, path: Path, row: tables.Row) -> str | None:
    if row.fault is not None:
        return row.fault
    try:
        there = path.is_file()
    except (OSError, ValueError):  # a name that is too long, or with a zero byte
        there = False
    return images.header_fault(path, max_pixels) if there else "there is no such file"


# Digits


class DigitCaptionsSource(Source):
    items = "images with captions"

    def __init__(self, spec: specs.DigitCaptions) -> None:
        found = DigitsSource(Digits(scene=spec.scene, seed=spec.seed))
        self._train = DigitCaptionsSplit(found.train(), [spec.seed, 0])
        self._test = DigitCaptionsSplit(found.test(), [spec.seed, 1])

    def train(self) -> Split:
        return self._train

    def test(self) -> Split:
        return self._test


class DigitCaptionsSplit(Split):
    """``templates``: the sentences that captions are made of, which zero-shot classification asks with."""

    templates = TEMPLATES

    def __init__(self, digits: Split, seed: Sequence[int]) -> None:
        super().__init__()
        assert digits.labels is not None
        self._digits = digits
        self.labels, self.classes = digits.labels, WORDS
        drawn = np.random.default_rng(list(seed)).integers(len(TEMPLATES), size=len(digits))
        self.captions = [TEMPLATES[which].format(WORDS[label]) for which, label in zip(drawn, self.labels, strict=True)]

    def __len__(self) -> int:
        return len(self._digits)

    def __getitem__(self, index: int) -> Image.Image:
        image: Image.Image = self._digits[index]
        return with_caption(image.copy(), self.captions[index])


def with_caption(image: Image.Image, caption: str) -> Image.Image:
    image.info["caption"] = caption
    return image


def write_tiny(root: str) -> None:
    """Small pictures of noise in class folders, each with a caption beside it."""
    folder.write_tiny(root)
    for path in sorted(Path(root).rglob("*.png")):
        _caption_of(path).write_text(f"noise number {path.stem} of {path.parent.name}\n", "utf-8")
