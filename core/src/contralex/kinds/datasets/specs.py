"""Specs of the core's data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from contralex.files import expand_user, mode, path_exists
from contralex.kinds.datasets.limits import MAX_PIXELS, MaxPixels
from contralex.plugins.spec import Slot, Spec
from contralex.recipes.paths import LocalPath

_IMAGES = frozenset({"images", "labels"})


class DigitsSpec(Spec):
    """scikit-learn's 1797 real handwritten digits, offline; 1437 to train on and 360 to evaluate on."""

    kind: Literal["digits"] = "digits"
    builds = ".digits:DigitsSource"
    scene: Literal["plain", "hard"] = "hard"
    """``plain`` is the digit itself; ``hard`` is a 32x32 picture in which the digit stands at a random position, in a
    random colour on a random texture, so that raw pixels are a weak baseline."""
    seed: int = Field(0, ge=0, lt=2**63)
    """The seed of the scenes."""
    gives = _IMAGES
    source = "UCI optical recognition of handwritten digits, through sklearn.datasets.load_digits"

    @classmethod
    def tiny(cls, folder: str) -> DigitsSpec:
        return cls()


class ImageFolderSpec(Spec):
    """A folder of images: flat, nested, or with one folder for each class.

    Folders ``train``, ``val`` and ``test``, by the names that tools give them, are splits.
    """

    kind: Literal["image_folder"] = "image_folder"
    builds = ".folder:FolderSource"
    root: Annotated[str, LocalPath()]
    """The folder that holds the images."""
    labels: Literal["auto", "folders", "none"] = "auto"
    """``auto`` takes folders as classes where nearly all images lie in two or more of them, ``folders`` insists,
    ``none`` ignores them."""
    held_out: float = Field(0.2, ge=0, lt=1)
    """The fraction of labelled images that is kept for evaluation, where there is no split for it."""
    max_pixels: MaxPixels = MAX_PIXELS
    """An image of more pixels is left out."""
    gives = _IMAGES
    source = "the layout of torchvision.datasets.ImageFolder, and plain folders"
    example = {"root": "."}

    def offers(self) -> frozenset[str]:
        return self.gives - {"labels"} if self.labels == "none" else self.gives

    def read_from(self) -> str:
        return self.root

    def absent(self) -> tuple[str, str] | None:
        return None if path_exists(self.root) else ("root", self.root)

    @classmethod
    def of_path(cls, path: Path) -> dict[str, str] | None:
        return {"root": str(path)} if path.is_dir() else None

    @classmethod
    def tiny(cls, folder: str) -> ImageFolderSpec:
        from contralex.kinds.datasets.folder import write_tiny_folder

        write_tiny_folder(folder)
        return cls(root=folder)


class TorchvisionSpec(Spec):
    """``root``: where the files are, or go when ``download`` is true."""

    root: Annotated[str, LocalPath()] = "data"
    """The folder of the data set's files."""
    download: bool = False
    """Whether the files may be downloaded."""
    gives = _IMAGES
    files: ClassVar[tuple[str, ...]]  # of which one is in ``root`` where the data are

    def read_from(self) -> str:
        return self.root

    def absent(self) -> tuple[str, str] | None:
        there = self.download or any(mode(expand_user(self.root) / name) for name in self.files)
        return None if there else ("root", self.root)


class CIFAR10Spec(TorchvisionSpec):
    """60 000 photographs of 32x32 pixels in 10 classes."""

    kind: Literal["cifar10"] = "cifar10"
    builds = ".torchvision_sets:cifar10_source"
    source = "Krizhevsky, 2009, through torchvision.datasets.CIFAR10"
    files = ("cifar-10-batches-py",)


class CIFAR100Spec(TorchvisionSpec):
    """60 000 photographs of 32x32 pixels in 100 classes."""

    kind: Literal["cifar100"] = "cifar100"
    builds = ".torchvision_sets:cifar100_source"
    source = "Krizhevsky, 2009, through torchvision.datasets.CIFAR100"
    files = ("cifar-100-python",)


class STL10Spec(TorchvisionSpec):
    """96x96 photographs; trains on 100 000 without labels and 5 000 with, evaluates on 8 000."""

    kind: Literal["stl10"] = "stl10"
    builds = ".torchvision_sets:stl10_source"
    source = "Coates et al., 2011, through torchvision.datasets.STL10"
    files = ("stl10_binary",)


class ImageNetSpec(TorchvisionSpec):
    """ImageNet-1k; the archives must lie in ``root``, because they may not be downloaded freely."""

    kind: Literal["imagenet"] = "imagenet"
    builds = ".torchvision_sets:imagenet_source"
    root: Annotated[str, LocalPath()] = "data/imagenet"
    """The folder of the ImageNet files."""
    download: Literal[False] = False
    """ImageNet cannot be downloaded."""
    source = "ILSVRC 2012, through torchvision.datasets.ImageNet"
    files = ("train", "ILSVRC2012_img_train.tar")


class Flowers102Spec(TorchvisionSpec):
    """8,189 photographs of flowers of 102 kinds; 2,040 to train on, 6,149 to evaluate on."""

    kind: Literal["flowers102"] = "flowers102"
    builds = ".labelled_files:flowers102_source"
    source = "Nilsback & Zisserman, 2008, through torchvision.datasets.Flowers102 (needs scipy)"
    files = ("flowers-102",)


class OxfordPetsSpec(TorchvisionSpec):
    """7,349 photographs of cats and dogs of 37 breeds; 3,680 to train on, 3,669 to evaluate on."""

    kind: Literal["oxford_pets"] = "oxford_pets"
    builds = ".labelled_files:oxford_pets_source"
    source = "Parkhi et al., 2012, through torchvision.datasets.OxfordIIITPet"
    files = ("oxford-iiit-pet",)


class Food101Spec(TorchvisionSpec):
    """101,000 photographs of 101 dishes; 75,750 to train on, 25,250 to evaluate on."""

    kind: Literal["food101"] = "food101"
    builds = ".labelled_files:food101_source"
    source = "Bossard et al., 2014, through torchvision.datasets.Food101"
    files = ("food-101",)


class DTDSpec(TorchvisionSpec):
    """5,640 photographs of textures of 47 kinds; 3,760 to train on, 1,880 to evaluate on (the first partition)."""

    kind: Literal["dtd"] = "dtd"
    builds = ".labelled_files:dtd_source"
    source = "Cimpoi et al., 2014, through torchvision.datasets.DTD"
    files = ("dtd",)


class AircraftSpec(TorchvisionSpec):
    """10,000 photographs of aircraft of 100 variants; 6,667 to train on, 3,333 to evaluate on."""

    kind: Literal["aircraft"] = "aircraft"
    builds = ".labelled_files:aircraft_source"
    source = "Maji et al., 2013, through torchvision.datasets.FGVCAircraft"
    files = ("fgvc-aircraft-2013b",)


class HuggingFaceSpec(Spec):
    """A data set of the Hugging Face hub, or a local folder of one (``pip install 'contralex[datasets]'``)."""

    kind: Literal["hf"] = "hf"
    builds = ".hugging_face:HuggingFaceSource"
    path: Annotated[str, LocalPath(may_be_a_name=True)]
    """The data set's name on the hub, or its folder."""
    config: str | None = None
    """The configuration of the data set; null: its default."""
    train: str = "train"
    """The split to train on."""
    test: str | None = None
    """The split to evaluate on; null: none."""
    image: str = "image"
    """The column that holds images."""
    label: str | None = None
    """The column that holds classes; null: the data have no labels."""
    max_pixels: MaxPixels = MAX_PIXELS
    """An image of more pixels is left out."""
    gives = _IMAGES
    source = "the package datasets"
    example = {"path": "cifar10"}

    def read_from(self) -> str:
        return self.path

    def offers(self) -> frozenset[str]:
        return self.gives - {"labels"} if self.label is None else self.gives


class LabelledSpec(Spec):
    """Some of the labelled samples of another data set, the same number of each class, and no other samples."""

    kind: Literal["labelled"] = "labelled"
    builds = ".labelled:LabelledSource"
    of: Annotated[Spec, Slot("data")]
    """The other data set; its test split stays as it is."""
    share: float = Field(gt=0, le=1)
    """The fraction of its labelled training samples that is kept, at least one of each class. A larger fraction
    contains a smaller one."""
    seed: int = Field(0, ge=0, lt=2**63)
    """The seed that chooses which labels are kept."""
    gives = _IMAGES
    source = "SimCLR v2, arXiv:2006.10029, section 3 (1 % and 10 % of the labels); code: imagenet_subsets/"
    example = {"of": {"kind": "digits", "scene": "plain"}, "share": 0.1}

    @field_validator("of")
    @classmethod
    def _check_labels(cls, value: Spec) -> Spec:
        if "labels" not in value.offers():
            raise ValueError(f"these data ({value.kind_name()}) have no labels to take a fraction of")
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

    @classmethod
    def tiny(cls, folder: str) -> LabelledSpec:
        return cls(of=ImageFolderSpec.tiny(folder), share=0.5)
