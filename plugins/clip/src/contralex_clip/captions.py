"""Images with captions: beside them in a folder, in a table, or made up for digits.

An item is an image whose ``info["caption"]`` is its caption, so that it is also data for methods of images alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from contralex.plugin import (
    MAX_PIXELS,
    ContralexError,
    DigitsSource,
    FolderSource,
    FolderSplit,
    Paths,
    Source,
    Split,
    Subset,
    Unreadable,
    compact,
    expand_user,
    headers,
    images,
    layout,
    printable,
    remedy,
    write_tiny_folder,
)
from contralex_clip import tables
from contralex_clip.data_spec import is_table

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


def image_captions(
    root: str,
    test: str | None = None,
    image: str = "image",
    caption: str = "caption",
    label: str | None = None,
    split: str | None = "split",
    labels: Literal["auto", "folders", "none"] = "auto",
    held_out: float = 0.2,
    max_pixels: int = MAX_PIXELS,
) -> Source:
    """Open a table of images and captions, or a folder of images with a caption beside each."""
    if is_table(root):
        return TableSource(root, test, tables.Columns(image, caption, label, split), max_pixels)
    return CaptionFolderSource(root, labels, held_out, max_pixels)


# A folder


class CaptionFolderSource(Source):
    """A folder's images, read and split as ``image_folder`` does. Those without a caption are named and left out."""

    items = "images with captions"

    def __init__(
        self,
        root: str,
        labels: Literal["auto", "folders", "none"] = "auto",
        held_out: float = 0.2,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        folder = FolderSource(root, labels, held_out, max_pixels)
        self.notes = folder.notes
        train, test = folder.train(), folder.test()
        self._train = CaptionFolderSplit(train, _find_captioned(train))
        self._test = None if test is None else CaptionFolderSplit(test, _find_captioned(test))

    def train(self) -> Split:
        return self._train

    def test(self) -> Split | None:
        return self._test


class CaptionFolderSplit(Subset):
    """Those of a folder's images that have a caption beside them."""

    def __init__(self, split: FolderSplit, indices: Sequence[int]) -> None:
        super().__init__(split, indices)
        self.paths = split.paths.select(indices)

    def __getitem__(self, index: int) -> Image.Image:
        image: Image.Image = super().__getitem__(index)
        return set_caption(image, _read_text(_caption_of(self.paths[index])))


def _find_captioned(split: FolderSplit) -> Sequence[int]:
    """The indices of the images that have a caption; the others are named."""

    def fault(index: int) -> str | None:
        caption = _caption_of(split.paths[index])
        return None if caption.is_file() else f"there is no {caption.name} beside it"

    count = len(split)
    faults = headers.faults(split.paths, fault, "captions")
    looked = len(headers.checked(count))
    if len(faults) == looked:
        some = "" if looked == count else f" of the {looked:,} that were looked at"
        raise ContralexError(
            f"data.root {split.paths.root} has {count} images, and none{some} has a caption; put the caption of "
            f"{split.paths[0].name} beside it, as {_caption_of(split.paths[0]).name}."
        )
    for index, reason in faults.items():
        split.skip(str(split.paths[index]), reason)
    return compact(index for index in range(count) if index not in faults)


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

    def __init__(
        self,
        root: str,
        test: str | None = None,
        columns: tables.Columns = tables.COLUMNS,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        path = expand_user(root)
        train_rows, test_rows, self.notes = _divide(tables.read(path, columns, "root"), printable(path))
        is_labelled = columns.label is not None
        self._train = TableSplit(path, train_rows, "root", is_labelled, max_pixels)
        self._test: TableSplit | None = None
        if test is not None:
            other = expand_user(test)
            rows = tables.read(other, columns, "test")
            self._test = TableSplit(other, rows, "test", is_labelled, max_pixels, self._train.classes)
            self._test.origin = printable(other.name)
        elif test_rows is not None:
            self._test = TableSplit(path, test_rows, "root", is_labelled, max_pixels, self._train.classes)
            self._test.origin = f"{columns.split} {test_rows.splits[0]}"
        if self._test is not None:
            self._train.skipped.merge([self._test.skipped])
            self._test.skipped = self._train.skipped  # one count for both

    def train(self) -> Split:
        return self._train

    def test(self) -> Split | None:
        return self._test


def _divide(rows: tables.Rows, name: str) -> tuple[tables.Rows, tables.Rows | None, list[str]]:
    """The lines to train on, those to evaluate on, and what is left out. A line without a split is to train on."""
    by_split: dict[str, list[int]] = defaultdict(list)
    for index, split in enumerate(rows.splits):
        by_split[split].append(index)
    roles = {split: layout.role_of(split) for split in by_split if split}
    trained = [split for split in by_split if not split or (roles[split] or ("train",))[0] == "train"]
    if not trained:
        raise ContralexError(
            f"{name} has the splits {', '.join(map(printable, sorted(roles)))}, and no line to train on; name those "
            f"train. To train on every line:{remedy('--set', 'data.split=null')}"
        )
    evaluated = sorted((role[0] != "val", split) for split, role in roles.items() if role and role[0] != "train")
    notes = [f"split {printable(split)} ({len(by_split[split]):,}) is left out" for _, split in evaluated[1:]]
    train = rows.select(sorted(index for split in trained for index in by_split[split]))
    return train, rows.select(by_split[evaluated[0][1]]) if evaluated else None, notes


class TableSplit(Split):
    """A line of a table is a sample.

    Images that are missing, whose header is no image's, or that have no caption, and lines that are damaged, are named
    and left out.
    """

    def __init__(
        self,
        path: Path,
        rows: tables.Rows,
        field: str,
        is_labelled: bool,
        max_pixels: int,
        classes: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self._max_pixels = max_pixels
        files = Paths(path.parent, rows.images)
        found = headers.faults(
            files, lambda index: rows.faults.get(index) or _fault(files[index], max_pixels), str(path)
        )
        faults = {**rows.faults, **found}
        for index in sorted(faults):
            line = f"{path}, line {rows.lines[index]}" if index in rows.faults else str(files[index])
            self.skip(line, faults[index])
        if len(found) == len(headers.checked(len(rows))):
            raise ContralexError(
                f"data.{field} {printable(path)} has {len(rows)} lines, and none that can be used; "
                f"line {rows.lines[0]}{f', {printable(rows.images[0])}' if rows.images[0] else ''}: {faults[0]}"
            )
        rows = rows.select(index for index in range(len(rows)) if index not in faults)
        self.paths = Paths(path.parent, rows.images)
        self.captions = rows.captions
        if is_labelled:
            names = {name for name in rows.labels if name}
            self.classes = classes or sorted(names)
            number = {name: label for label, name in enumerate(self.classes)}
            if strange := sorted(names - number.keys()):
                raise ContralexError(
                    f"data.{field} {printable(path)} has the label {strange[0]}, and the lines to train on have no "
                    "such label; give both the same labels."
                )
            self.labels = [number.get(name, -1) for name in rows.labels]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image:
        return set_caption(images.read(self.paths[index], self._max_pixels), self.captions[index])


def _fault(path: Path, max_pixels: int) -> str | None:
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # a name that is too long, or with a zero byte
        is_file = False
    return images.header_fault(path, max_pixels) if is_file else "there is no such file"


# Digits


class TemplateSplit(Split):
    """Captions that are made of ``templates``, in which {} is the name of the class. Zero-shot classification uses the
    same sentences."""

    templates: Sequence[str]


class DigitCaptionsSource(Source):
    """Handwritten digits, each with a caption that says which it is. ``seed`` draws the scenes and the captions."""

    items = "images with captions"

    def __init__(self, scene: Literal["plain", "hard"] = "hard", seed: int = 0) -> None:
        digits = DigitsSource(scene, seed)
        train, test = digits.train(), digits.test()
        self._train = DigitCaptionsSplit(train, train.labels, [seed, 0])
        self._test = DigitCaptionsSplit(test, test.labels, [seed, 1])

    def train(self) -> Split:
        return self._train

    def test(self) -> Split:
        return self._test


class DigitCaptionsSplit(TemplateSplit):
    """``seed`` draws which sentence a digit gets."""

    templates = TEMPLATES

    def __init__(self, digits: Split, labels: Sequence[int], seed: Sequence[int]) -> None:
        super().__init__()
        self._digits = digits
        self.labels, self.classes = labels, WORDS
        drawn = np.random.default_rng(list(seed)).integers(len(TEMPLATES), size=len(digits))
        self.captions = [TEMPLATES[which].format(WORDS[label]) for which, label in zip(drawn, self.labels, strict=True)]

    def __len__(self) -> int:
        return len(self._digits)

    def __getitem__(self, index: int) -> Image.Image:
        image: Image.Image = self._digits[index]
        return set_caption(image.copy(), self.captions[index])


def set_caption(image: Image.Image, caption: str) -> Image.Image:
    image.info["caption"] = caption
    return image


def write_tiny(root: str) -> None:
    """Small pictures of noise in class folders, each with a caption beside it."""
    write_tiny_folder(root)
    for path in sorted(Path(root).rglob("*.png")):
        _caption_of(path).write_text(f"noise number {path.stem} of {path.parent.name}\n", "utf-8")
