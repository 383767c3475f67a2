"""The images of a report: some to look at, which are held out where there is a split for it, and some to find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from contralex.data.base import Source, Split, Unreadable, as_tensor
from contralex.reporting.limits import NAME
from contralex.reporting.view_grid import short_name

_SEED = 0  # of two reports on the same data, the same images


@dataclass(frozen=True)
class Sampled:
    """``asked`` of ``asked_split`` are shown on the map and as queries; neighbours are looked for among ``bank`` of
    ``bank_split``. ``held_out``: whether the two are different splits."""

    asked_split: Split
    asked: Sequence[int]
    bank_split: Split
    bank: Sequence[int]
    held_out: bool
    classes: Sequence[str]

    def asked_names(self) -> list[str]:
        return [self.asked_split.item_name(index) for index in self.asked]

    def asked_labels(self) -> list[int]:
        """-1 for an image without a label."""
        return labels_of(self.asked_split, self.asked)

    def bank_labels(self) -> list[int]:
        return labels_of(self.bank_split, self.bank)

    def class_name(self, label: int) -> str:
        if label < 0:
            return ""
        name = self.classes[label] if label < len(self.classes) else f"class {label}"
        return name if len(name) <= NAME else f"{name[: NAME - 1]}…"


def choose_samples(source: Source, most: int) -> Sampled:
    """At most so many of each kind, the same for the same data."""
    train, test = source.train(), source.test()
    bank = _some(len(train), most)
    classes = train.classes or ()
    if test is None or not len(test):
        return Sampled(train, bank, train, bank, False, classes)
    return Sampled(test, _some(len(test), most), train, bank, True, classes or test.classes or ())


def choose_queries(labels: Sequence[int], count: int) -> list[int]:
    """Rows of images to look at: of each class in its turn one, as they stand; without labels evenly apart."""
    if not any(label >= 0 for label in labels):
        wanted = min(count, len(labels))
        return [number * len(labels) // wanted for number in range(wanted)]
    waiting: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        if label >= 0:
            waiting.setdefault(label, []).append(row)
    chosen: list[int] = []
    while len(chosen) < count and any(waiting.values()):
        for label in sorted(waiting):
            if waiting[label] and len(chosen) < count:
                chosen.append(waiting[label].pop(0))
    return chosen


def labels_of(split: Split, indices: Sequence[int]) -> list[int]:
    if split.labels is None:
        return [-1] * len(indices)
    chosen: list[int] = as_tensor(split.labels)[torch.tensor(list(indices), dtype=torch.long)].tolist()
    return chosen


def read_images(split: Split, indices: Sequence[int]) -> Iterator[Image.Image]:
    """The images as their files have them; a white one for each that cannot be read."""
    for index in indices:
        try:
            item = split[index]
        except Unreadable:
            item = None
        yield item if isinstance(item, Image.Image) else Image.new("RGB", (8, 8), "white")


def are_images(split: Split) -> bool:
    """Whether the samples are images, by the first that can be read."""
    for index in range(min(len(split), 20)):
        try:
            return isinstance(split[index], Image.Image)
        except Unreadable:
            continue
    return False


def caption(split: Split, index: int) -> str:
    return short_name(split.item_name(index))


def _some(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    chosen: list[int] = (
        torch.randperm(count, generator=torch.Generator().manual_seed(_SEED))[:most].sort().values.tolist()
    )
    return chosen
