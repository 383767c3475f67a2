"""CIFAR-10, CIFAR-100, STL-10 and ImageNet, read by torchvision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchvision import datasets

from contralex.data import images
from contralex.data.base import Source, Split
from contralex.errors import ContralexError
from contralex.kinds.datasets.specs import MAX_PIXELS

if TYPE_CHECKING:
    from contralex.kinds.datasets.specs import _Torchvision as Spec


# For each kind, how torchvision opens it to train and to judge.
_OPENERS: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]] = {
    "cifar10": (datasets.CIFAR10, {"train": True}, {"train": False}),
    "cifar100": (datasets.CIFAR100, {"train": True}, {"train": False}),
    "stl10": (datasets.STL10, {"split": "train+unlabeled"}, {"split": "test"}),
    "imagenet": (datasets.ImageNet, {"split": "train"}, {"split": "val"}),
}


class TorchvisionSource(Source):
    def __init__(self, spec: Spec) -> None:
        opener, train, test = _OPENERS[spec.kind_name()]
        self._train = TorchvisionSplit(_open(opener, spec, train))
        self._test = TorchvisionSplit(_open(opener, spec, test))

    def train(self) -> Split:
        return self._train

    def test(self) -> Split:
        return self._test


class TorchvisionSplit(Split):
    def __init__(self, dataset: Any) -> None:
        super().__init__()
        self._dataset = dataset
        labels = dataset.targets if hasattr(dataset, "targets") else dataset.labels  # STL-10: -1 where unlabelled
        self.labels = [int(label) for label in labels]
        # ImageNet's classes are tuples of synonyms
        self.classes = [name if isinstance(name, str) else ", ".join(name) for name in dataset.classes]

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index][0]


def _open(opener: Callable[..., Any], spec: Spec, which: dict[str, Any]) -> Any:
    root = Path(spec.root).expanduser()
    options: dict[str, Any] = {"download": spec.download}
    if spec.kind_name() == "imagenet":  # files, which torchvision would read in a way of its own
        options = {"loader": partial(images.read, max_pixels=MAX_PIXELS)}
    try:
        return opener(str(root), **which, **options)
    except ImportError as error:  # scipy, for the devkit of ImageNet
        raise ContralexError(
            f"data.kind {spec.kind_name()} needs a package: {_first_line(error)}; pip install it."
        ) from error
    except (RuntimeError, OSError) as error:
        raise ContralexError(_advice(spec, root, error)) from error


def _advice(spec: Spec, root: Path, error: Exception) -> str:
    if spec.kind_name() == "imagenet":
        return (
            f"ImageNet is not in data.root {root}; put ILSVRC2012_devkit_t12.tar.gz, ILSVRC2012_img_train.tar and "
            "ILSVRC2012_img_val.tar there, which image-net.org gives after registration."
        )
    if spec.download:
        return f"{spec.kind_name()} could not be downloaded into data.root {root}: {_first_line(error)}."
    return (
        f"{spec.kind_name()} is not in data.root {root}, or is damaged there; set data.download=true to download it, "
        "or data.root to the folder that has it."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
