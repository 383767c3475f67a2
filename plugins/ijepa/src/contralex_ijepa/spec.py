"""Specs of I-JEPA: views with blocks, a Transformer of patches alone, the encoder with its predictor, and the loss."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from contralex.plugin import Augment, InOrder, Spec, ViewCompany
from contralex_ijepa.blocks import block_size

_Share = Annotated[float, Field(gt=0, le=1)]
_Shares = Annotated[tuple[_Share, _Share], InOrder]
_Aspect = Annotated[float, Field(ge=0.01, le=100)]


_BLOCKS = (".ooo...", ".oooooo", ".oooooo", "....ooo", "ooo....", "ooooooo", "   oooo")  # four, in a context


class TargetBlocks(Spec):
    """Blocks whose tokens are predicted. All of a batch have one size; each has a place of its own, and they may
    overlap."""

    count: int = Field(4, gt=0, le=64)
    """Blocks of an image."""
    scale: _Shares = (0.15, 0.2)
    """The smallest and the largest fraction of the patches that a block covers."""
    aspect: Annotated[tuple[_Aspect, _Aspect], InOrder] = (0.75, 1.5)
    """The height over the width, of a block of the smallest and of one of the largest scale."""


class ContextBlock(Spec):
    """The square block that the encoder sees, without the patches of the targets. All of a batch have one size."""

    scale: _Shares = (0.85, 1.0)
    """The smallest and the largest fraction of the patches that the block covers, before targets are taken out."""
    more_than: int = Field(10, ge=0, le=1_000_000)
    """Fewer patches are left than this, or as many: the block is drawn again, and after 20 times one target less is
    taken out."""


_TARGETS = TargetBlocks()
_CONTEXT = ContextBlock()


class BlockViewsSpec(Spec):
    """One view: an augmented crop, with the places of a context block and of target blocks."""

    kind: Literal["blocks"] = "blocks"
    builds = ".views:BlockViews"
    augment: Augment
    """The crop, and what else happens to the image."""
    patch: int = Field(16, gt=0, le=1024)
    """Pixels of a patch's side, as the encoder has them."""
    targets: TargetBlocks = _TARGETS
    """The blocks that are predicted."""
    context: ContextBlock = _CONTEXT
    """The block that they are predicted from."""
    needs = {"data": frozenset({"images"})}
    gives = frozenset({"context and target blocks"})
    source = "I-JEPA, arXiv:2301.08243, section 3 and appendix A.1; code: ijepa multiblock.py"
    example = {
        "augment": {"order": ("crop",), "crop": {"size": 16, "scale": (0.5, 1.0)}},
        "patch": 4,
        "context": {"more_than": 1},
    }

    @property
    def rows(self) -> int:
        return self.augment.crop.size // self.patch

    @model_validator(mode="after")
    def _check_blocks(self) -> BlockViewsSpec:
        if self.augment.jigsaw:
            raise ValueError(
                "jigsaw cuts an image into pieces, and here blocks of one image are predicted; leave it out"
            )
        if self.augment.crop.size % self.patch:
            raise ValueError(
                f"patch is {self.patch}, which does not divide a crop of {self.augment.crop.size} pixels; change one"
            )
        if self.rows < 2:
            raise ValueError(
                f"a crop of {self.augment.crop.size} pixels is one patch of {self.patch}; make patch smaller"
            )
        smallest = [
            block_size(self.rows, self.rows, scale, aspect)
            for scale, aspect in zip(self.targets.scale, self.targets.aspect, strict=True)
        ]
        if not all(height and width for height, width in smallest):
            raise ValueError(
                f"a target of {self.targets.scale[0]:g} of {self.rows**2} patches is none; raise targets.scale"
            )
        height, width = block_size(self.rows, self.rows, self.context.scale[0], 1.0)
        if height * width <= self.context.more_than:
            raise ValueError(
                f"context.more_than is {self.context.more_than}, and the smallest context has {height * width} "
                "patches; make more_than smaller"
            )
        return self

    def key_flags(self) -> list[bool]:
        return [True]

    def explained_as(self) -> list[str]:
        return [f"1 of {self.augment.crop.size} px"]

    def explained_company(self) -> list[ViewCompany]:
        (low, high), (least, most) = self.targets.scale, self.context.scale
        lines = (
            f"{self.targets.count} targets of {low:.0%} to {high:.0%} of the patches of {self.patch} px",
            f"a context of {least:.0%} to {most:.0%}, without the targets",
            "a batch draws their sizes, each image their places",
        )
        return [ViewCompany("blocks", [0], lines, _BLOCKS)]


class PatchViTSpec(Spec):
    """A Vision Transformer of patches alone (timm's): no class token, fixed sines and cosines as positions; features
    are the mean of the patches after the last norm."""

    kind: Literal["patch_vit"] = "patch_vit"
    builds = ".vit:patch_vit_backbone"
    image_size: int = Field(224, gt=0, le=4096)
    """Pixels of a side."""
    patch: int = Field(16, gt=0, le=1024)
    """Pixels of a patch's side."""
    width: int = Field(768, gt=0, le=65536, multiple_of=4)
    """Dimensions of a token."""
    depth: int = Field(12, gt=0, le=1024)
    """Number of blocks."""
    heads: int = Field(12, gt=0, le=1024)
    """Heads of attention in each block."""
    mlp_ratio: float = Field(4.0, gt=0, le=64)
    """The hidden layer of a block's MLP, in widths."""
    channels: int = Field(3, gt=0, le=4096)
    """Channels of the image."""
    init_std: float = Field(0.02, gt=0, le=1)
    """The standard deviation of the first weights. Positions do not follow it: where a patch has few pixels, small
    weights make tokens that say where they are and little else."""
    gives = frozenset({"places"})
    added = frozenset({"init_std"})
    source = "I-JEPA, arXiv:2301.08243, appendix A.1; code: ijepa vision_transformer.py"
    example = {"image_size": 16, "patch": 4, "width": 8, "depth": 1, "heads": 2}

    @model_validator(mode="after")
    def _check_sizes(self) -> PatchViTSpec:
        if self.image_size % self.patch:
            raise ValueError(f"image_size is {self.image_size}, which patch, {self.patch}, does not divide; change one")
        if self.width % self.heads:
            raise ValueError(f"width is {self.width}, which {self.heads} heads do not divide; change one of the two")
        return self

    def image_shape(self) -> tuple[int, int | None]:
        return self.channels, self.image_size


class Predictor(Spec):
    """A narrow Transformer over the tokens of the context and a mask token for each place of a target block."""

    width: int = Field(384, gt=0, le=65536, multiple_of=4)
    """Dimensions of a token."""
    depth: int = Field(12, gt=0, le=1024)
    """Blocks."""
    heads: int | None = Field(None, gt=0, le=1024)
    """Heads of attention in each block; null: as many as the encoder's."""
    init_std: float = Field(0.02, gt=0, le=1)
    """The standard deviation of the first weights, and of the mask token."""
    added = frozenset({"init_std"})


_PREDICTOR = Predictor()


class IJEPASpec(Spec):
    """A Transformer that reads the patches of the context alone, and a predictor of the tokens that the key side, which
    reads the whole image, has at the places of the target blocks."""

    kind: Literal["ijepa"] = "ijepa"
    builds = ".encoder:JointEmbeddingPredictor"
    backbone: PatchViTSpec
    """The encoder, of kind ``patch_vit``; features are those of the complete image."""
    predictor: Predictor = _PREDICTOR
    """The predictor, which is left behind after training."""
    needs = {
        "views": frozenset({"context and target blocks"}),
        "key_encoder": frozenset({"keys by a pass of their own"}),  # the whole image, which the query side never sees
    }
    gives = frozenset({"queries at positions", "any length"})
    source = "I-JEPA, arXiv:2301.08243, section 3; code: ijepa vision_transformer.py, train.py"
    example = {
        "backbone": {"image_size": 16, "patch": 4, "width": 8, "depth": 1, "heads": 2},
        "predictor": {"width": 8, "depth": 1},
    }

    def explained_sides(self) -> tuple[str, str]:
        return "the context, and where the targets lie", "the whole image"

    @model_validator(mode="after")
    def _check_heads(self) -> IJEPASpec:
        heads = self.predictor.heads or self.backbone.heads
        if self.predictor.width % heads:
            raise ValueError(
                f"predictor.width is {self.predictor.width}, which {heads} heads do not divide; change one"
            )
        return self


class SmoothL1Spec(Spec):
    """The squared difference between the query and the target vector where it is small, the absolute one where it is
    large; the mean over dimensions and queries."""

    kind: Literal["smooth_l1"] = "smooth_l1"
    builds = ".loss:SmoothL1"
    beta: float = Field(1.0, gt=0, le=1e6)
    """The difference at which the one becomes the other."""
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "Girshick, Fast R-CNN, arXiv:1504.08083, Eq. 3; I-JEPA's code: train.py"
