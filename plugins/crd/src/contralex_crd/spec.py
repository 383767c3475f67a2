"""The specs of contrastive representation distillation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from contralex.plugin import Augment, LocalPath, Placement, Slot, Spec, StoredIn

IMAGE, LOGITS = "image", "logits"  # the outputs of the encoder


class SameSpec(Spec):
    """One augmented image, ``count`` times, so that student and teacher see the same pixels."""

    kind: Literal["same"] = "same"
    builds = ".views:SameViews"
    augment: Augment
    """What happens to the image."""
    count: int = Field(2, gt=0, le=16)
    """Views, all of the same pixels."""
    pad: int = Field(0, ge=0, le=512)
    """Black pixels that are put around the image on each side first; a crop of constant ``scale`` and ``ratio`` 1 then
    moves over it, as it is usual on CIFAR."""
    needs = {"data": frozenset({"images"})}
    gives = frozenset({"images"})
    source = "CRD, arXiv:1910.10699, section 3.1; code: RepDistiller dataset/cifar100.py"
    example = {"augment": {"order": ("crop",), "crop": {"size": 12, "scale": (0.5, 1.0)}}}

    def key_flags(self) -> list[bool]:
        """Every view may be a key."""
        return [True] * self.count


class CifarResNetSpec(Spec):
    """The ResNet for 32x32 images: a 3x3 convolution and three stages of basic blocks, ``depth`` layers in all."""

    kind: Literal["cifar_resnet"] = "cifar_resnet"
    builds = ".resnet:cifar_resnet"
    depth: int = Field(ge=8, le=1202)
    """Layers: 6n + 2."""
    widths: tuple[Annotated[int, Field(gt=0, le=65536)], ...] = Field((16, 16, 32, 64), min_length=4, max_length=4)
    """Channels of the first convolution and of the three stages."""
    channels: int = Field(3, gt=0, le=4096)
    """Channels of the image."""
    source = "He et al., 2016, arXiv:1512.03385, section 4.2; code: RepDistiller models/resnet.py"
    example = {"depth": 8, "widths": (4, 4, 6, 8)}

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, value: int) -> int:
        if (value - 2) % 6:
            near = value - (value - 2) % 6
            raise ValueError(f"three stages of blocks of two layers make a depth of 6n + 2, so {near} or {near + 6}")
        return value

    def image_shape(self) -> tuple[int, int | None]:
        return self.channels, None


class DistilledSpec(Spec):
    """A student with a classifier, and a frozen teacher. View 0 goes to the student, view 1 to the teacher.

    Each gives an embedding of unit length and, as the output ``logits``, what it says of the classes.
    """

    kind: Literal["distilled"] = "distilled"
    builds = ".encoder:DistilledEncoder"
    backbone: Annotated[Spec, Slot("backbone")]
    """The student's network."""
    classes: int | None = Field(None, gt=1, le=1_000_000)
    """Classes; null: there is no classifier and no output ``logits``."""
    width: int = Field(128, gt=0, le=65536)
    """Dimensions of the embeddings; both sides have a linear layer that makes them, and both layers are trained."""
    teacher: Annotated[str | None, LocalPath()]
    """The folder of a run, or one of its checkpoints, whose encoder is of kind image. Where that ends in ``classes``
    logits, without normalize, its logits can be distilled. null: a backbone like the student's with
    random weights, which teaches nothing."""
    needs = {"views": frozenset({"images"})}
    gives = frozenset({"one query a view", "unit length"})
    source = "CRD, arXiv:1910.10699, section 3.1 and Eq. 18; code: RepDistiller crd/criterion.py"
    example = {"backbone": {"kind": "conv", "widths": (6, 8), "strides": (2, 2)}, "width": 8, "teacher": None}

    def output_names(self) -> tuple[str, ...]:
        return (IMAGE,) if self.classes is None else (IMAGE, LOGITS)

    def offers_of(self, output: str) -> frozenset[str]:
        return frozenset({"one query a view", "any length"}) if output == LOGITS else self.offers()


class OtherClassesSpec(Spec):
    """A memory of each key view, of which a query sees its own sample and ``draws`` of other classes."""

    kind: Literal["other_classes"] = "other_classes"
    builds = ".memory:OtherClassesMemory"
    draws: int = Field(gt=0, le=10_000_000)
    """Rows of other classes that are drawn for each query."""
    positive: Literal["exact", "relax"] = "exact"
    """What memory holds of the query's own sample (``exact``), or of any sample of its class (``relax``)."""
    momentum: float = Field(0.5, ge=0, le=1)
    """The weight of the stored vector when it is updated."""
    placement: Placement = "replicated"
    """Whether every process holds all of the memory (``replicated``) or a part (``sharded``)."""
    dtype: StoredIn = "float32"
    """What the memory is stored in; look-ups are in float32."""
    needs = {"data": frozenset({"labels"}), "encoder": frozenset({"one query a view"})}
    gives = frozenset({"entries", "positive", "drawn"})
    source = "CRD, arXiv:1910.10699, section 3.2; code: RepDistiller crd/memory.py, dataset/cifar100.py"
    example = {"draws": 16}
