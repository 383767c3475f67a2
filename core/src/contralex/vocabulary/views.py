"""Specs of the core's views: groups of augmented crops, with the parameters of every augmentation family.

An augmentation is a mapping from operation to parameters, and ``order`` is the order in which they are applied.
So what one recipe changes of another's is one line, and ``null`` takes an operation out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from contralex.spec.base import Spec

if TYPE_CHECKING:
    from contralex.parts.views import Views

Probability = Annotated[float, Field(ge=0, le=1)]


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1]:
        raise ValueError(f"two numbers above 0, the smaller first, and here they are {value[0]:g} and {value[1]:g}")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]


class Crop(Spec):
    """A random crop of ``scale`` (share of the area) and ``ratio`` (width/height), resized to ``size`` pixels."""

    size: int = Field(gt=0, description="pixels")
    scale: Range
    ratio: Range = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


class Jitter(Spec):
    """Random brightness, contrast, saturation and hue, in random order, with probability ``p``."""

    brightness: float = Field(ge=0)
    contrast: float = Field(ge=0)
    saturation: float = Field(ge=0)
    hue: float = Field(ge=0, le=0.5)
    p: Probability = 1.0


class Gray(Spec):
    """Greyscale in three channels, with probability ``p``."""

    p: Probability


class Flip(Spec):
    """Horizontal mirror image, with probability ``p``."""

    p: Probability = 0.5


class Blur(Spec):
    """Gaussian blur, with probability ``p``. ``kernel``: null blurs with radius σ as PIL does (the code of MoCo v2,
    SimSiam, SwAV); a number is the kernel's size in pixels (SimCLR, BYOL: a tenth of the crop, odd)."""

    p: Probability
    sigma: Range = (0.1, 2.0)
    kernel: int | None = Field(None, gt=0)

    @field_validator("kernel")
    @classmethod
    def _odd(cls, value: int | None) -> int | None:
        if value is not None and value % 2 == 0:
            raise ValueError(f"a kernel has an odd number of pixels, so {value - 1} or {value + 1}, not {value}")
        return value


class Solarize(Spec):
    """Inverts pixels above ``threshold`` (of 1), with probability ``p``."""

    p: Probability
    threshold: float = Field(0.5, ge=0, le=1)


class Normalize(Spec):
    """(x − mean) / std for each channel of pixels in [0, 1]."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


Operation = Literal["crop", "jitter", "gray", "flip", "blur", "solarize"]


class Augment(Spec):
    """What happens to an image, in ``order``; then pixels become numbers in [0, 1], and ``normalize`` applies."""

    order: tuple[Operation, ...]
    crop: Crop
    jitter: Jitter | None = None
    gray: Gray | None = None
    flip: Flip | None = None
    blur: Blur | None = None
    solarize: Solarize | None = None
    normalize: Normalize | None = None

    def model_post_init(self, context: object) -> None:
        missing = [name for name in _OPERATIONS if getattr(self, name) is not None and name not in self.order]
        if missing:
            raise ValueError(f"order does not say when {' and '.join(missing)} happens; add it to order")
        if len(set(self.order)) != len(self.order):
            raise ValueError("order names an operation twice; each happens once")


_OPERATIONS = ("crop", "jitter", "gray", "flip", "blur", "solarize")


class Group(Spec):
    """``count`` views with one augmentation. ``key``: whether these views are looked up as keys (SwAV's small
    crops are not)."""

    count: int = Field(1, gt=0, le=256)
    key: bool = True
    augment: Augment


class Crops(Spec):
    """Augmented crops of one image, group after group: view 0 is the first of the first group."""

    kind: Literal["crops"] = "crops"
    groups: dict[str, Group] = Field(min_length=1)
    needs = {"data": frozenset({"images"})}
    gives = frozenset({"images"})
    source = "SimCLR, arXiv:2002.05709, appendix A; SwAV, arXiv:2006.09882, section 3.2 (multi-crop)"
    example = {
        "groups": {"crops": {"count": 2, "augment": {"order": ("crop",), "crop": {"size": 12, "scale": (0.5, 1.0)}}}}
    }

    def key_flags(self) -> list[bool]:
        """For each view, whether it may be a key."""
        return [group.key for group in self.groups.values() for _ in range(group.count)]

    def build(self) -> Views:
        from contralex.parts.views import CropViews

        return CropViews(self)
