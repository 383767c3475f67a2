"""Specs of the core's data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from contralex.files import expanded, mode
from contralex.spec.base import Slot, Spec
from contralex.spec.paths import LocalPath

if TYPE_CHECKING:
    from contralex.data.base import Source

_IMAGES = frozenset({"images", "labels"})
MAX_PIXELS = 178_956_970  # above it PIL refuses a file, as one that may have been made to fill the memory
MaxPixels = Annotated[int, Field(gt=0, le=2**53, description="pixels")]


class Digits(Spec):
    """scikit-learn's 1797 real handwritten digits, offline; 1437 to train on and 360 to judge with.

    ``scene``: ``plain`` is the digit itself; ``hard`` is a 32x32 picture in which the digit stands at a random
    place, in a random colour on a random texture, so that pixels say little and content can be learnt.
    ``seed`` fixes the scene.
    """

    kind: Literal["digits"] = "digits"
    scene: Literal["plain", "hard"] = "hard"
    seed: int = Field(0, ge=0, lt=2**63)
    gives = _IMAGES
    source = "UCI optical recognition of handwritten digits, through sklearn.datasets.load_digits"

    def build(self) -> Source:
        from contralex.data.digits import DigitsSource

        return DigitsSource(self)

    @classmethod
    def tiny(cls, folder: str) -> Digits:
        return cls()


class ImageFolder(Spec):
    """A folder of images: flat, nested, or with one folder for each class.

    Folders ``train``, ``val`` and ``test``, by the names that tools give them, are splits. ``labels``: ``auto`` takes
    the folders directly below as classes if all images lie in two or more such folders, ``folders`` insists,
    ``none`` ignores them. ``held_out``: where there is no separate split, the share of labelled images that is kept
    for evaluation. ``max_pixels``: an image of more pixels is left out.
    """

    kind: Literal["image_folder"] = "image_folder"
    root: Annotated[str, LocalPath()]
    labels: Literal["auto", "folders", "none"] = "auto"
    held_out: float = Field(0.2, ge=0, lt=1)
    max_pixels: MaxPixels = MAX_PIXELS
    gives = _IMAGES
    source = "the layout of torchvision.datasets.ImageFolder, and plain folders"
    example = {"root": "."}

    def offers(self) -> frozenset[str]:
        return self.gives - {"labels"} if self.labels == "none" else self.gives

    def read_from(self) -> str:
        return self.root

    def absent(self) -> tuple[str, str] | None:
        return None if mode(expanded(self.root)) else ("root", self.root)

    @classmethod
    def of_path(cls, path: Path) -> dict[str, str] | None:
        return {"root": str(path)} if path.is_dir() else None

    def build(self) -> Source:
        from contralex.data.folder import FolderSource

        return FolderSource(self)

    @classmethod
    def tiny(cls, folder: str) -> ImageFolder:
        from contralex.data.folder import write_tiny

        write_tiny(folder)
        return cls(root=folder)


class _Torchvision(Spec):
    """``root``: where the files are, or go when ``download`` is true."""

    root: Annotated[str, LocalPath()] = "data"
    download: bool = False
    gives = _IMAGES
    files: ClassVar[tuple[str, ...]]  # of which one is in ``root`` where the data are

    def read_from(self) -> str:
        return self.root

    def absent(self) -> tuple[str, str] | None:
        there = self.download or any(mode(expanded(self.root) / name) for name in self.files)
        return None if there else ("root", self.root)

    def build(self) -> Source:
        from contralex.data.torchvision_sets import TorchvisionSource

        return TorchvisionSource(self)


class CIFAR10(_Torchvision):
    """60 000 photographs of 32x32 pixels in 10 classes."""

    kind: Literal["cifar10"] = "cifar10"
    source = "Krizhevsky, 2009, through torchvision.datasets.CIFAR10"
    files = ("cifar-10-batches-py",)


class CIFAR100(_Torchvision):
    """60 000 photographs of 32x32 pixels in 100 classes."""

    kind: Literal["cifar100"] = "cifar100"
    source = "Krizhevsky, 2009, through torchvision.datasets.CIFAR100"
    files = ("cifar-100-python",)


class STL10(_Torchvision):
    """96x96 photographs; trains on 100 000 without labels and 5 000 with, judged on 8 000."""

    kind: Literal["stl10"] = "stl10"
    source = "Coates et al., 2011, through torchvision.datasets.STL10"
    files = ("stl10_binary",)


class ImageNet(_Torchvision):
    """ImageNet-1k; the archives must lie in ``root``, because they may not be downloaded freely."""

    kind: Literal["imagenet"] = "imagenet"
    root: Annotated[str, LocalPath()] = "data/imagenet"
    download: Literal[False] = False
    source = "ILSVRC 2012, through torchvision.datasets.ImageNet"
    files = ("train", "ILSVRC2012_img_train.tar")


class HuggingFace(Spec):
    """A data set of the Hugging Face hub or a local folder of one (``pip install 'contralex[datasets]'``).

    ``train`` and ``test`` name splits; ``test: null`` for none. ``image`` and ``label`` name columns;
    ``label: null`` for none. ``max_pixels``: an image of more pixels is left out.
    """

    kind: Literal["hf"] = "hf"
    path: Annotated[str, LocalPath(may_be_a_name=True)]
    config: str | None = None
    train: str = "train"
    test: str | None = None
    image: str = "image"
    label: str | None = None
    max_pixels: MaxPixels = MAX_PIXELS
    gives = _IMAGES
    source = "the package datasets"
    example = {"path": "cifar10"}

    def read_from(self) -> str:
        return self.path

    def offers(self) -> frozenset[str]:
        return self.gives - {"labels"} if self.label is None else self.gives

    def build(self) -> Source:
        from contralex.data.hf import HuggingFaceSource

        return HuggingFaceSource(self)


class Labelled(Spec):
    """Some of the labelled samples of another data set, with as many of each class as there are, and no others.

    ``of``: the other data set; its test split stays as it is. ``share``: of its labelled training samples, in (0, 1];
    at least one of each class. A larger share holds what a smaller one does. ``seed`` chooses them.
    """

    kind: Literal["labelled"] = "labelled"
    of: Annotated[Spec, Slot("data")]
    share: float = Field(gt=0, le=1)
    seed: int = Field(0, ge=0, lt=2**63)
    gives = _IMAGES
    source = "SimCLR v2, arXiv:2006.10029, section 3 (1 % and 10 % of the labels); code: imagenet_subsets/"
    example = {"of": {"kind": "digits", "scene": "plain"}, "share": 0.1}

    @field_validator("of")
    @classmethod
    def _has_labels(cls, value: Spec) -> Spec:
        if "labels" not in value.offers():
            kind = getattr(value, "kind", type(value).__name__)
            raise ValueError(f"these data ({kind}) have no labels to take a share of")
        return value

    def offers(self) -> frozenset[str]:
        return self.of.offers()

    def read_from(self) -> str:
        return self.of.read_from()

    def whole_data(self) -> Spec:
        return self.of

    def absent(self) -> tuple[str, str] | None:
        inside = self.of.absent()
        return None if inside is None else (f"of.{inside[0]}", inside[1])

    def build(self) -> Source:
        from contralex.data.labelled import LabelledSource

        return LabelledSource(self)

    @classmethod
    def tiny(cls, folder: str) -> Labelled:
        return cls(of=ImageFolder.tiny(folder), share=0.5)
