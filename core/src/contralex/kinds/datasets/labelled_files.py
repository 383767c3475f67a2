"""Photographs that torchvision lists with their classes, for transfer: flowers, pets, food, textures, aircraft."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from torchvision import datasets

from contralex.compat import classified_files
from contralex.data import images
from contralex.data.base import Source, Split, compact, index_bytes
from contralex.data.fingerprints import digest, sizes, states
from contralex.data.photographs import Photograph, open_image
from contralex.kinds.datasets.limits import MAX_PIXELS
from contralex.kinds.datasets.torchvision_sets import open_set

# For each kind: torchvision's class, the splits that are joined to learn from, and the one to evaluate on.
SETS: dict[str, tuple[Callable[..., Any], tuple[str, ...], str]] = {
    "flowers102": (datasets.Flowers102, ("train", "val"), "test"),
    "oxford_pets": (datasets.OxfordIIITPet, ("trainval",), "test"),
    "food101": (datasets.Food101, ("train",), "test"),
    "dtd": (datasets.DTD, ("train", "val"), "test"),
    "aircraft": (datasets.FGVCAircraft, ("trainval",), "test"),
}


def flowers102_source(root: str | Path = "data", download: bool = False) -> LabelledFilesSource:
    """8,189 flowers of 102 kinds (Nilsback & Zisserman, 2008): 2,040 of ``train`` and ``val`` to learn from. ``root``:
    the folder where the files are, or go where ``download`` is true."""
    return LabelledFilesSource("flowers102", root, download)


def oxford_pets_source(root: str | Path = "data", download: bool = False) -> LabelledFilesSource:
    """7,349 cats and dogs of 37 breeds (Parkhi et al., 2012), as :func:`flowers102_source`."""
    return LabelledFilesSource("oxford_pets", root, download)


def food101_source(root: str | Path = "data", download: bool = False) -> LabelledFilesSource:
    """101,000 dishes of 101 kinds (Bossard et al., 2014), as :func:`flowers102_source`."""
    return LabelledFilesSource("food101", root, download)


def dtd_source(root: str | Path = "data", download: bool = False) -> LabelledFilesSource:
    """5,640 textures of 47 kinds (Cimpoi et al., 2014), the first of its ten partitions: ``train`` and ``val`` to learn
    from; as :func:`flowers102_source`."""
    return LabelledFilesSource("dtd", root, download)


def aircraft_source(root: str | Path = "data", download: bool = False) -> LabelledFilesSource:
    """10,000 aircraft of 100 variants (Maji et al., 2013), as :func:`flowers102_source`."""
    return LabelledFilesSource("aircraft", root, download)


class LabelledFilesSource(Source):
    """One of :data:`SETS`, by the name of its kind."""

    def __init__(self, kind: str, root: str | Path, download: bool = False) -> None:
        opener, to_train, to_test = SETS[kind]
        folder = Path(root).expanduser()
        opened = [
            open_set(kind, folder, download, partial(opener, str(folder), split=split, download=download))
            for split in (*to_train, to_test)
        ]
        self._train, self._test = LabelledFiles(opened[:-1]), LabelledFiles(opened[-1:])

    def train(self) -> Split:
        return self._train

    def test(self) -> Split:
        return self._test


class LabelledFiles(Split):
    """The files of one or several of torchvision's splits, one after the other."""

    labels: Sequence[int]

    def __init__(self, opened: Sequence[Any]) -> None:
        super().__init__()
        found = [classified_files(each) for each in opened]
        self._files = [file for files, _ in found for file in files]
        self.labels = compact(label for _, labels in found for label in labels)
        # torchvision before 0.20 does not name the flowers
        self.classes = list(getattr(opened[0], "classes", map(str, range(max(self.labels) + 1))))

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Image.Image:
        return images.read(self._files[index], MAX_PIXELS)

    def open_item(self, index: int) -> Photograph | Image.Image:
        return open_image(self._files[index], MAX_PIXELS)

    def item_name(self, index: int) -> str:
        return str(self._files[index])

    def fingerprint(self) -> str:
        return digest([index_bytes(self.labels), *(file.name for file in self._files), *sizes(self._files)])

    def cache_key(self) -> str:
        return digest([*map(str, self._files), *states(self._files)])
