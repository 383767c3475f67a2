"""A folder of images: flat, nested, or with one folder for each class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from contralex.data import headers, images, layout
from contralex.data.base import Source, Split, index_bytes, printable
from contralex.data.fingerprints import digest, sizes, states
from contralex.data.paths import Paths
from contralex.data.photographs import Photograph, open_image
from contralex.errors import ContralexError, remedy
from contralex.kinds.datasets.limits import MAX_PIXELS

_HEIF = frozenset({".heic", ".heif", ".hif"})
# Pictures that PIL reads with another package, in its newer versions, or not at all: .jxl, and what cameras call raw
_NOT_READ = _HEIF | {".avif", ".jxl", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw"}


class FolderSource(Source):
    """Images sorted by path. Files whose header is no image's are named and left out when the folder is opened,
    as far as they are looked at then (see headers); the others are replaced where they are drawn (see ViewDataset).

    ``root``: flat, nested, or with one folder for each class; folders ``train``, ``val`` and ``test`` are splits.
    ``labels``: folders are classes where nearly all images lie in two or more (``auto``), in any case (``folders``), or
    never (``none``). ``held_out``: the fraction of labelled images that is kept for evaluation, where there is no split
    for it. ``max_pixels``: an image of more is left out.
    """

    def __init__(
        self,
        root: str | Path,
        labels: layout.Labels = "auto",
        held_out: float = 0.2,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        folder = Path(root).expanduser()
        _check_folder(folder)
        listing = layout.walk(folder, _extensions(), _NOT_READ)
        others = _describe_others(listing)
        if not listing.files:
            raise ContralexError(
                f"data.root {printable(folder)} has no images: no file in it, or in a folder below, ends in .jpg, .png "
                f"or another of the {len(_extensions())} extensions that PIL reads.{f' {others}' if others else ''}"
            )
        found = layout.arrange(listing, labels)
        counts = [len(part.paths) for part in (found.train, found.test) if part is not None]
        self.notes = [*found.notes, *([others] if others else []), *headers.note(*counts)]
        self._train = _open(found.train, max_pixels)
        if found.test is not None:
            self._test: FolderSplit | None = _open(found.test, max_pixels)
            self._train.skipped.merge([self._test.skipped])
        else:
            self._train, self._test = _hold_out(self._train, held_out)
        if self._test is not None:
            self._test.skipped = self._train.skipped  # one count for both

    def train(self) -> FolderSplit:
        return self._train

    def test(self) -> FolderSplit | None:
        return self._test


class FolderSplit(Split):
    """``paths`` are below the folder that holds the ``classes``, where there are any; ``labels``: of each path the
    index of its class."""

    labels: list[int] | None

    def __init__(self, paths: Paths, classes: Sequence[str] | None, labels: list[int] | None, max_pixels: int) -> None:
        super().__init__()
        self.max_pixels = max_pixels
        self.paths = paths
        self.labels = labels
        if classes is not None:
            self.classes = [printable(name) for name in classes]

    def select(self, indices: Sequence[int]) -> FolderSplit:
        """Some of the images, in this order, with one count of those that cannot be read."""
        labels = None if self.labels is None else [self.labels[index] for index in indices]
        selected = FolderSplit(self.paths.select(indices), self.classes, labels, self.max_pixels)
        selected.skipped, selected.origin = self.skipped, self.origin
        return selected

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image:
        return images.read(self.paths.string(index), self.max_pixels)

    def open_item(self, index: int) -> Photograph | Image.Image:
        return open_image(self.paths.string(index), self.max_pixels)

    def item_name(self, index: int) -> str:
        return self.paths.string(index)

    def fingerprint(self) -> str:
        """Of the names below the folder, the sizes, and the classes."""
        labels = b"" if self.labels is None else index_bytes(self.labels)
        return digest([*(self.classes or ()), labels, *self.paths.names, *sizes(self.paths.strings())])

    def cache_key(self) -> str:
        root = str(self.paths.root.resolve())
        return digest([root, self.max_pixels, *self.paths.names, *states(self.paths.strings())])


def _open(part: layout.Part, max_pixels: int) -> FolderSplit:
    count = len(part.paths)
    faults = headers.faults(part.paths, lambda index: images.header_fault(part.paths[index], max_pixels), "images")
    looked = len(headers.checked(count))
    if len(faults) == looked:
        some = "" if looked == count else f" of the {looked:,} that were looked at"
        raise ContralexError(
            f"data.root {printable(part.folder)} has {count} images, and none{some} can be read; "
            f"{printable(part.paths[0])}: {faults[0]}"
        )
    split = FolderSplit(part.paths, part.classes, part.labels, max_pixels)
    split.origin = part.origin
    if faults:
        split = split.select([index for index in range(count) if index not in faults])
    for index, fault in faults.items():
        split.skip(str(part.paths[index]), fault)
    return split


def _hold_out(whole: FolderSplit, fraction: float) -> tuple[FolderSplit, FolderSplit | None]:
    """Keeps ``fraction`` of each class for evaluation. Which images is decided by a hash of their path in the
    folder, so it is the same on any machine, and an image that is added later moves few others."""
    if whole.labels is None or fraction == 0:
        return whole, None
    # A class after the other, each by its hashes: lexsort sorts by the last first.
    hashes = np.frombuffer(b"".join(map(_digest, whole.paths.names)), ">u8")
    labels = np.asarray(whole.labels)
    order = np.lexsort((hashes, labels))
    held = np.zeros(len(whole), dtype=bool)
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)  # a class of one stays in training
        held[members[:count]] = True
    if not held.any():
        return whole, None
    train, test = (whole.select(np.flatnonzero(some).tolist()) for some in (~held, held))
    test.origin = f"{fraction:.0%} of each class, held out"
    return train, test


def _extensions() -> frozenset[str]:
    """Of the formats that PIL opens as pictures (it registers some that it only writes, and video and PDF)."""
    Image.init()
    known = Image.registered_extensions()
    return frozenset(end for end, name in known.items() if name in Image.OPEN) - {".mpg", ".mpeg", ".hdf", ".h5"}


def _describe_others(listing: layout.Listing) -> str:
    """A sentence about files that are pictures, and that PIL does not read; empty where there are none."""
    ends = {end: count for end, count in sorted(listing.others.items()) if end not in _extensions()}
    counts = " and ".join(f"{count:,} of {end}" for end, count in ends.items())
    heif = remedy("pip", "install", "pillow-heif") if ends.keys() & _HEIF else ""
    return counts and f"{counts} are left out, which PIL does not read{':' if heif else ''}{heif}"


def _check_folder(root: Path) -> None:
    if root.is_file():
        raise ContralexError(f"data.root {root} is a file; give the folder that holds the images.")
    if not root.is_dir():
        raise ContralexError(f"data.root {root} does not exist; give the folder that holds the images.")


def _digest(name: str) -> bytes:
    posix = name.replace(os.sep, "/").encode("utf-8", "surrogateescape")  # the bytes of the name
    return hashlib.blake2b(posix, digest_size=8).digest()


def write_tiny_folder(folder: str, samples: int = 30, classes: int = 3, size: int = 40) -> None:
    """Small pictures of noise in class folders: data for a test of everything but learning."""
    rng = np.random.default_rng(0)
    for index in range(samples):
        path = Path(folder) / f"class-{index % classes}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
