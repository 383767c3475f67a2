"""The specs of CMC: an image's colour channels as its views, and the AlexNet that the paper halves."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from contralex.plugin import Augment, Spec

_CHANNELS = 3
_LARGEST = 1000  # what a mean or deviation of a channel may be


class LabSpec(Spec):
    """The channels of one augmented image as views: L and ab of the same crop."""

    kind: Literal["lab"] = "lab"
    builds = ".views:LabViews"
    augment: Augment
    """What happens to the image before its colours are taken apart."""
    space: Literal["lab", "ydbdr"] = "lab"
    """``lab`` is CIE L*a*b* of D65, ``ydbdr`` luma and the chroma differences of SECAM."""
    split: tuple[int, ...] = Field((1, 2), min_length=2)
    """Channels of each view, in their order."""
    mean: tuple[float, float, float] | None = None
    """The mean, which is subtracted from the three channels; null: the middle of what colours can reach."""
    std: tuple[float, float, float] | None = None
    """The standard deviation, which then divides them; null: half the width of what colours can reach."""
    needs = {"data": frozenset({"images"}), "encoder": frozenset({"an encoder a view"})}
    gives = frozenset({"images"})
    source = "CMC, arXiv:1906.05849, section 4.1; code: CMC dataset.py, train_CMC.py"
    example = {"augment": {"order": ("crop",), "crop": {"size": 12, "scale": (0.5, 1.0)}}}

    @model_validator(mode="after")
    def _channels(self) -> LabSpec:
        if sum(self.split) != _CHANNELS or min(self.split) < 1:
            raise ValueError(
                f"split shares out {_CHANNELS} channels, at least one to a view, such as [1, 2] or [1, 1, 1], "
                f"and here it is {list(self.split)}"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values and not all(abs(value) <= _LARGEST for value in values):
                raise ValueError(f"{name} is of channels, which stay within {_LARGEST}, and here it is {list(values)}")
        if self.std and min(self.std) <= 0:
            raise ValueError(f"std divides, so each is above 0, and here it is {list(self.std)}")
        if self.augment.normalize is not None:
            raise ValueError(
                "augment.normalize is of red, green and blue, and changes the colours that are taken apart after it; "
                "set it to null, and use mean and std here"
            )
        return self

    def key_flags(self) -> list[bool]:
        """Every view may be a key."""
        return [True] * len(self.split)


class AlexNetBNSpec(Spec):
    """AlexNet with BatchNorm after each of its seven layers, the linear ones too, for images of 224 pixels."""

    kind: Literal["alexnet_bn"] = "alexnet_bn"
    builds = ".alexnet:alexnet_bn"
    width: float = Field(0.5, gt=0, le=8)
    """Multiplies the channels of every layer; .5 is the half that CMC gives each view."""
    channels: int = Field(3, gt=0, le=4096)
    """Channels of the image."""
    source = "Krizhevsky et al., 2012; CMC, arXiv:1906.05849; code: CMC models/alexnet.py"
    example = {"width": 0.05}

    def image_shape(self) -> tuple[int, int | None]:
        return self.channels, None
