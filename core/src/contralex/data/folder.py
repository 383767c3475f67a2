"""A folder of images: flat, nested, or with one folder for each class."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from contralex.data import images
from contralex.data.base import Source, Split
from contralex.errors import ContralexError

if TYPE_CHECKING:
    from contralex.vocabulary.datasets import ImageFolder

_THREADS = 16  # for headers: mostly waiting for the disk


class FolderSource(Source):
    """Images sorted by path. Files whose header is no image's are named and left out when the folder is opened,
    by every process alike; those that break later are replaced where they are drawn (see ViewDataset)."""

    def __init__(self, spec: ImageFolder) -> None:
        root = Path(spec.root).expanduser()
        _check_folder(root)
        if judged := _separate(root):
            self._train = _open(root / "train", spec)
            self._test: FolderSplit | None = _open(judged, spec, self._train.classes)
            self._train.skipped += self._test.skipped
        else:
            self._train, self._test = _hold_out(_open(root, spec), spec.held_out)
        if self._test is not None:
            self._test.skipped = self._train.skipped  # one count for both

    def train(self) -> Split:
        return self._train

    def test(self) -> Split | None:
        return self._test


class FolderSplit(Split):
    def __init__(self, root: Path, paths: Sequence[Path], classes: Sequence[str] | None, max_pixels: int) -> None:
        super().__init__()
        self.max_pixels = max_pixels
        self.root = root
        self.paths = paths
        self.classes = classes
        if classes is not None:
            number = {name: label for label, name in enumerate(classes)}
            self.labels = [number[_class_of(path, root)] for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image:
        return images.read(self.paths[index], self.max_pixels)


def _separate(root: Path) -> Path | None:
    """The folder of the evaluation split, where ``root`` is cut into splits."""
    if (root / "train").is_dir():
        for name in ("val", "test"):
            if (root / name).is_dir():
                return root / name
    return None


def _open(root: Path, spec: ImageFolder, known: Sequence[str] | None = None) -> FolderSplit:
    """``known``: the classes of the training split, which the evaluation split must share."""
    files = sorted(_files(root))
    if not files:
        raise ContralexError(
            f"data.root {root} has no images: no file in it, or in a folder below, ends in .jpg, .png or another of "
            f"the {len(_extensions())} extensions that PIL reads."
        )
    with ThreadPoolExecutor(_THREADS) as pool:
        faults = list(pool.map(partial(images.header_fault, max_pixels=spec.max_pixels), files))
    paths = [path for path, fault in zip(files, faults, strict=True) if fault is None]
    if not paths:
        raise ContralexError(
            f"data.root {root} has {len(files)} images, and none can be read; {files[0]}: {faults[0]}."
        )
    split = FolderSplit(root, paths, _classes(root, files, spec.labels, known), spec.max_pixels)
    for path, fault in zip(files, faults, strict=True):
        if fault is not None:
            split.skip(str(path), fault)
    return split


def _classes(root: Path, files: Sequence[Path], labels: str, known: Sequence[str] | None) -> Sequence[str] | None:
    """The folders directly below ``root``, where they are the classes."""
    loose = next((path for path in files if path.parent == root), None)
    if labels == "folders" and loose is not None:
        raise ContralexError(
            f"data.labels is folders, but {loose} lies directly in {root}; put each image in the folder of its "
            "class, or set data.labels to none."
        )
    if labels == "none" or loose is not None:
        return None
    found = sorted({_class_of(path, root) for path in files})
    if known is None:
        # One folder with everything in it sorts nothing.
        return found if labels == "folders" or len(found) > 1 else None
    if strange := sorted(set(found) - set(known)):
        raise ContralexError(
            f"{root} has a folder {strange[0]}, and there is no such class in {root.parent / 'train'}; "
            "give both the same class folders, or set data.labels to none."
        )
    return known


def _hold_out(whole: FolderSplit, share: float) -> tuple[FolderSplit, FolderSplit | None]:
    """Keeps ``share`` of each class for evaluation. Which images is decided by a hash of their path in the
    folder, so it is the same on any machine, and an image that is added later moves few others."""
    if whole.labels is None or share == 0:
        return whole, None
    by_class: dict[int, list[Path]] = defaultdict(list)
    for path, label in zip(whole.paths, whole.labels, strict=True):
        by_class[label].append(path)
    held: set[Path] = set()
    for members in by_class.values():
        count = min(max(round(share * len(members)), 1), len(members) - 1)  # a class of one stays in training
        held.update(sorted(members, key=lambda path: _digest(path, whole.root))[:count])
    if not held:
        return whole, None
    kept = [path for path in whole.paths if path not in held]
    train = FolderSplit(whole.root, kept, whole.classes, whole.max_pixels)
    train.skipped = whole.skipped
    return train, FolderSplit(whole.root, sorted(held), whole.classes, whole.max_pixels)


def _files(root: Path) -> Iterator[Path]:
    """Every file below ``root`` with an image's extension; links are followed, each folder once."""
    extensions, visited = _extensions(), set()
    for folder, below, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a link that leads back up
            below.clear()
            continue
        visited.add(real)
        # Hidden files are no one's photographs: ._a.jpg is what macOS puts beside a.jpg in an archive.
        below[:] = sorted(name for name in below if not name.startswith(".") and name != "__MACOSX")
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in extensions:
                yield Path(folder, name)


def _extensions() -> frozenset[str]:
    """Of the formats that PIL opens as pictures (it registers some that it only writes, and video and PDF)."""
    Image.init()
    known = Image.registered_extensions()
    return frozenset(end for end, name in known.items() if name in Image.OPEN) - {".mpg", ".mpeg", ".hdf", ".h5"}


def _check_folder(root: Path) -> None:
    if root.is_file():
        raise ContralexError(f"data.root {root} is a file; give the folder that holds the images.")
    if not root.is_dir():
        raise ContralexError(f"data.root {root} does not exist; give the folder that holds the images.")


def _class_of(path: Path, root: Path) -> str:
    return path.relative_to(root).parts[0]


def _digest(path: Path, root: Path) -> bytes:
    name = path.relative_to(root).as_posix().encode("utf-8", "surrogateescape")  # the bytes of the name
    return hashlib.blake2b(name, digest_size=8).digest()


def write_tiny(folder: str, samples: int = 30, classes: int = 3, size: int = 40) -> None:
    """Small pictures of noise in class folders: data for a test of everything but learning."""
    rng = np.random.default_rng(0)
    for index in range(samples):
        path = Path(folder) / f"class-{index % classes}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
