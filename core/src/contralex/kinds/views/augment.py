"""Augmentations of images, and groups of views: values that views of any kind may take.

An augmentation is a mapping from operation to parameters, and ``order`` is the order in which they are applied.
So what one recipe changes of another's is one line, and ``null`` takes an operation out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, field_validator

from contralex.plugins.spec import Spec

EngineName = Literal["exact", "fused", "torchvision"]
Decoding = Literal["full", "scaled"]
MadeOn = Literal["workers", "accelerator"]
Probability = Annotated[float, Field(ge=0, le=1)]


def _check_range(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1] <= 1e3:
        raise ValueError(
            f"two numbers above 0 and up to 1000, the smaller first, and here they are {value[0]:g} and {value[1]:g}"
        )
    return value


def _check_order(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"two numbers, the smaller first, and here they are {value[0]:g} and {value[1]:g}")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_check_range)]
InOrder = AfterValidator(_check_order)
"""Marks a field of two numbers, the smallest and the largest of something; they may be equal."""


class Crop(Spec):
    """A random crop of ``scale`` (fraction of the area) and ``ratio`` (width/height), resized to ``size`` pixels."""

    size: int = Field(gt=0, le=8192)
    """Pixels of a side after resizing."""
    scale: Range
    """The smallest and the largest fraction of the image's area."""
    ratio: Range = (3 / 4, 4 / 3)
    """The smallest and the largest width/height of the crop."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How pixels are interpolated when the crop is resized."""
    drawn: Literal["area", "height"] = "area"
    """Its ``area`` is uniform, and the logarithm of the ratio (torchvision); or its ``height`` and the ratio
    (TensorFlow: SimCLR), so that small crops are more frequent."""


class Jitter(Spec):
    """Random brightness, contrast, saturation and hue, in random order, with probability ``p``."""

    brightness: float = Field(ge=0, le=100)
    """The brightness changes by a factor within 1 ± this number."""
    contrast: float = Field(ge=0, le=100)
    """The contrast changes by a factor within 1 ± this number."""
    saturation: float = Field(ge=0, le=100)
    """The saturation changes by a factor within 1 ± this number."""
    hue: float = Field(ge=0, le=0.5)
    """The hue turns by at most this fraction of a full turn, either way."""
    p: Probability = 1.0
    """The probability that it happens."""


class Gray(Spec):
    """Greyscale in three channels, with probability ``p``."""

    p: Probability
    """The probability that it happens."""


class Flip(Spec):
    """Horizontal mirror image, with probability ``p``."""

    p: Probability = 0.5
    """The probability that it happens."""


class Blur(Spec):
    """Gaussian blur."""

    p: Probability
    """The probability that it happens."""
    sigma: Range = (0.1, 2.0)
    """The smallest and the largest standard deviation, in pixels."""
    kernel: int | None = Field(None, gt=0, le=8191)
    """The kernel's size in pixels (SimCLR, BYOL: a tenth of the crop, odd); null blurs with radius σ as PIL does (the
    code of MoCo v2, SimSiam, SwAV)."""

    @field_validator("kernel")
    @classmethod
    def _check_odd(cls, value: int | None) -> int | None:
        if value is not None and value % 2 == 0:
            raise ValueError(f"a kernel has an odd number of pixels, so {value - 1} or {value + 1}, not {value}")
        return value


class Solarize(Spec):
    """Inverts pixels above ``threshold`` (of 1), with probability ``p``."""

    p: Probability
    """The probability that it happens."""
    threshold: float = Field(0.5, ge=0, le=1)
    """Values above it are inverted, on a scale from 0 to 1."""


class RandAugment(Spec):
    """``ops`` operations at one ``magnitude`` (Cubuk et al., 2020, arXiv:1909.13719)."""

    ops: int = Field(2, gt=0, le=16)
    """Operations for each image."""
    magnitude: int = Field(9, ge=0, le=30)
    """The strength of the operations."""
    p: Probability = 1.0
    """The probability of each operation, which is .5 in timm."""
    law: Literal["torchvision", "tensorflow"] = "torchvision"
    """The operations and their scale: 14 of ``torchvision`` on a scale of 30; or 15 of the ``tensorflow`` code of
    EfficientNet and Noisy Student on a scale of 10 that goes on beyond it, so that 27 rotates by 81 degrees."""
    translate: int = Field(100, gt=0, le=4096)
    """Pixels by which a magnitude of 10 moves an image (``tensorflow`` alone)."""
    cutout: int | None = Field(None, gt=0, le=4096)
    """Pixels that the grey square of a 16th operation reaches at magnitude 10; null leaves it out (``tensorflow``)."""
    spread: float = Field(0.0, ge=0, le=10)
    """The standard deviation of magnitudes, which then end at 10, as timm has it (``tensorflow`` alone)."""

    def model_post_init(self, context: object) -> None:
        if self.law == "torchvision" and (self.cutout is not None or self.spread):
            raise ValueError("cutout and spread are for law: tensorflow, and the law is torchvision; change one")


class Jigsaw(Spec):
    """Cuts the image into ``grid`` x ``grid`` cells, takes a random crop of ``cell`` pixels out of each, and puts them
    in random order: the view is (grid², C, cell, cell). Operations before it in ``order`` apply to the
    image, operations after it to each piece separately.
    """

    grid: int = Field(3, gt=1, le=16)
    """Cells along a side."""
    cell: int = Field(gt=0, le=4096)
    """Pixels of a piece's side."""


_Mean = Annotated[float, Field(ge=-1e3, le=1e3)]
_Std = Annotated[float, Field(ge=1e-6, le=1e3)]


class Normalize(Spec):
    """(x − mean) / std for each channel of pixels in [0, 1]."""

    mean: tuple[_Mean, _Mean, _Mean] = (0.485, 0.456, 0.406)
    """The mean, which is subtracted from the red, green and blue values in [0, 1]."""
    std: tuple[_Std, _Std, _Std] = (0.229, 0.224, 0.225)
    """The standard deviation, which then divides them."""


Operation = Literal["crop", "jitter", "gray", "flip", "blur", "solarize", "rand_augment", "jigsaw"]


class Augment(Spec):
    """Operations on an image, in ``order``; then pixels become values in [0, 1], and ``normalize`` applies."""

    order: tuple[Operation, ...]
    """The operations, in the order in which they happen."""
    crop: Crop
    """The random crop."""
    jitter: Jitter | None = None
    """Random changes of colour; null: none."""
    gray: Gray | None = None
    """Random greyscale; null: none."""
    flip: Flip | None = None
    """A random mirror image; null: none."""
    blur: Blur | None = None
    """Random Gaussian blur; null: none."""
    solarize: Solarize | None = None
    """Random solarisation; null: none."""
    rand_augment: RandAugment | None = None
    """Random operations of RandAugment; null: none."""
    jigsaw: Jigsaw | None = None
    """Cuts the view into pieces; null: it is not cut."""
    normalize: Normalize | None = None
    """The mean and deviation by which pixel values are normalised; null: they stay in [0, 1]."""

    def model_post_init(self, context: object) -> None:
        missing = [name for name in get_args(Operation) if getattr(self, name) is not None and name not in self.order]
        if missing:
            raise ValueError(f"order does not say when {' and '.join(missing)} happens; add it to order")
        if len(set(self.order)) != len(self.order):
            raise ValueError("order names an operation twice; each happens once")
        if self.jigsaw and self.order.index("crop") > self.order.index("jigsaw"):
            raise ValueError("order has jigsaw before crop; pieces are cut out of the crop, so put crop first")
        if self.jigsaw and self.crop.size // self.jigsaw.grid < self.jigsaw.cell:
            raise ValueError(
                f"jigsaw.cell is {self.jigsaw.cell}, and a crop of {self.crop.size} pixels has cells of "
                f"{self.crop.size // self.jigsaw.grid}; lower cell, or raise crop.size"
            )


def keeps_from_scaling(augment: Augment) -> str | None:
    """Which operation keeps these views from being made of a photograph that was decoded at a fraction of its size."""
    first = _operations(augment)[0]
    return f"{first} happens before crop, to the whole image" if first != "crop" else None


def _operations(augment: Augment) -> list[str]:
    """Those that there are, in their order."""
    return [name for name in augment.order if getattr(augment, name) is not None]


def keeps_from_accelerator(augment: Augment) -> str | None:
    """Which operation keeps these views from being made on the device that trains; None where none does."""
    names = _operations(augment)
    if "rand_augment" in names:
        return "rand_augment is made by Pillow"
    if "jigsaw" in names:
        return "jigsaw cuts a crop into pieces"
    return keeps_from_scaling(augment)


class Group(Spec):
    """``count`` views with one augmentation."""

    count: int = Field(1, gt=0, le=256)
    """Number of views of the group."""
    key: bool = True
    """Whether these views are looked up as keys (SwAV's small crops are not)."""
    augment: Augment | None = None
    """The augmentation of the views of the group."""
    like: str | None = None
    """Instead of an ``augment``, that of an earlier group, all but its ``crop`` (multi-crop)."""
    crop: Crop | None = None
    """The crop of a group that is ``like`` another."""

    def model_post_init(self, context: object) -> None:
        if (self.augment is None) == (self.like is None):
            found = "are both; keep one of them" if self.like is not None else "is neither; write one of them"
            raise ValueError(f"a group has either augment or like, and here {found}")
        if (self.crop is None) != (self.like is None):
            mistake = "crop belongs into augment; move it there"
            if self.crop is None:
                mistake = "like needs a crop, which is what differs; add crop: {size: ..., scale: [..., ...]}"
            raise ValueError(mistake)


def expand_groups(groups: Mapping[str, Group]) -> dict[str, Augment]:
    """The augmentation of each group, that of a group ``like`` another written out.

    Raises ValueError where ``like`` names no earlier group with an augmentation of its own.
    """
    expanded: dict[str, Augment] = {}
    own: dict[str, Augment] = {}
    for name, group in groups.items():
        if group.augment is not None:
            expanded[name] = own[name] = group.augment
        elif group.like in own:
            # Validated again: what is right in a large crop may not be in a small one.
            expanded[name] = Augment.model_validate({**dict(own[group.like]), "crop": group.crop})
        else:
            there = f"there {'are' if len(own) > 1 else 'is'} {', '.join(own) or 'none'}"
            raise ValueError(
                f"groups.{name}.like is {group.like}; name a group that stands before it and has an augment, "
                f"of which {there}"
            )
    return expanded
