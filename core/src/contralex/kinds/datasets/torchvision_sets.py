"""CIFAR-10, CIFAR-100, STL-10 and ImageNet, read by torchvision."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torchvision import datasets

from contralex.data import images
from contralex.data.base import Source, Split, index_bytes
from contralex.data.fingerprints import digest, sizes, states
from contralex.data.photographs import open_image
from contralex.data.texts import Texts
from contralex.errors import ContralexError
from contralex.kinds.datasets.limits import MAX_PIXELS

# For each kind, how torchvision opens it to train and to evaluate.
_OPENERS: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]] = {
    "cifar10": (datasets.CIFAR10, {"train": True}, {"train": False}),
    "cifar100": (datasets.CIFAR100, {"train": True}, {"train": False}),
    "stl10": (datasets.STL10, {"split": "train+unlabeled"}, {"split": "test"}),
    "imagenet": (datasets.ImageNet, {"split": "train"}, {"split": "val"}),
}


def cifar10_source(root: str | Path = "data", download: bool = False) -> TorchvisionSource:
    """60 000 photographs of 32x32 pixels in 10 classes (Krizhevsky, 2009). ``root``: the folder where the files are, or
    go where ``download`` is true."""
    return TorchvisionSource("cifar10", root, download)


def cifar100_source(root: str | Path = "data", download: bool = False) -> TorchvisionSource:
    """60 000 photographs of 32x32 pixels in 100 classes, as :func:`cifar10_source`."""
    return TorchvisionSource("cifar100", root, download)


def stl10_source(root: str | Path = "data", download: bool = False) -> TorchvisionSource:
    """96x96 photographs, 100 000 without labels and 5 000 with to train on, 8 000 to evaluate on (Coates et al., 2011).
    ``root`` and ``download``: as of :func:`cifar10_source`."""
    return TorchvisionSource("stl10", root, download)


def imagenet_source(root: str | Path = "data/imagenet", download: Literal[False] = False) -> TorchvisionSource:
    """ImageNet-1k, ILSVRC 2012; its archives must lie in ``root``, because they may not be downloaded freely."""
    return TorchvisionSource("imagenet", root, download)


class TorchvisionSource(Source):
    """One of torchvision's data sets by the name of its kind: cifar10, cifar100, stl10 or imagenet."""

    def __init__(self, name: str, root: str | Path, download: bool = False) -> None:
        self._train = TorchvisionSplit(_open(name, Path(root).expanduser(), download, train=True))
        self._test = TorchvisionSplit(_open(name, Path(root).expanduser(), download, train=False))

    def train(self) -> Split:
        return self._train

    def test(self) -> Split:
        return self._test


class TorchvisionSplit(Split):
    labels: Sequence[int]

    def __init__(self, dataset: Any) -> None:
        super().__init__()
        # A million paths as objects would be copied into each worker, page by page, as it reads them.
        is_files = isinstance(dataset, datasets.ImageNet)
        self._files = Texts(path for path, _ in dataset.samples) if is_files else None
        self._dataset: Any = None if is_files else dataset
        # of STL-10, -1 where unlabelled
        labels = dataset.labels if isinstance(dataset, datasets.STL10) else dataset.targets
        self.labels = [int(label) for label in labels]
        # ImageNet's classes are tuples of synonyms
        self.classes = [name if isinstance(name, str) else ", ".join(name) for name in dataset.classes]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index][0] if self._files is None else images.read(self._files[index], MAX_PIXELS)

    def open_item(self, index: int) -> Any:
        return self[index] if self._files is None else open_image(self._files[index], MAX_PIXELS)

    def fingerprint(self) -> str:
        """Of the pixels where they are in memory, and else of the files' names and sizes; and of the labels."""
        labels = index_bytes(self.labels)
        if self._files is None:
            return digest([labels, np.ascontiguousarray(self._dataset.data).tobytes()])
        return digest([labels, *map(os.path.basename, self._files), *sizes(self._files)])

    def cache_key(self) -> str:
        if self._files is None:
            return self.fingerprint()
        return digest([*self._files, *states(self._files)])


def _open(name: str, root: Path, download: bool, *, train: bool) -> Any:
    opener, to_train, to_test = _OPENERS[name]
    options = {} if name == "imagenet" else {"download": download}
    return open_set(name, root, download, lambda: opener(str(root), **(to_train if train else to_test), **options))


def open_set(name: str, root: Path, download: bool, opener: Callable[[], Any]) -> Any:
    """What ``opener`` makes. What torchvision complains of is said with what to set."""
    try:
        return opener()
    except ImportError as error:  # scipy, for ImageNet's devkit and the lists of Flowers102
        raise ContralexError(f"data.kind {name} needs a package: {_first_line(error)}; pip install it.") from error
    except (RuntimeError, OSError) as error:
        raise ContralexError(_advice(name, root, download, error)) from error


def _advice(name: str, root: Path, download: bool, error: Exception) -> str:
    if name == "imagenet":
        return (
            f"ImageNet is not in data.root {root}; put ILSVRC2012_devkit_t12.tar.gz, ILSVRC2012_img_train.tar and "
            "ILSVRC2012_img_val.tar there, which image-net.org gives after registration."
        )
    if download:
        return f"{name} could not be downloaded into data.root {root}: {_first_line(error)}."
    return (
        f"{name} is not in data.root {root}, or is damaged there; set data.download=true to download it, "
        "or data.root to the folder that has it."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
