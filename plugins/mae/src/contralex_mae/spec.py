"""Specs of MAE: views that hide patches, an encoder that predicts them, keys that are the patches, and the loss."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from contralex.plugin import Augment, Spec, ViewCompany, ViTSpec, draw_scattered


def hidden_patches(patches: int, fraction: float) -> int:
    """How many of an image's patches are hidden; the visible ones are rounded down, as in the official code."""
    return patches - int(patches * (1 - fraction))


class MaskedViewsSpec(Spec):
    """One view: an augmented crop, and a further channel that is 1 where a patch is hidden and 0 elsewhere."""

    kind: Literal["masked"] = "masked"
    builds = ".views:MaskedViews"
    augment: Augment
    """The crop, and what else happens to the image."""
    patch: int = Field(16, gt=0, le=1024)
    """Pixels of a patch's side, as the encoder has them."""
    share: float = Field(0.75, gt=0, lt=1)
    """The fraction of patches that is hidden."""
    needs = {"data": frozenset({"images"})}
    gives = frozenset({"masked images"})
    source = "MAE, arXiv:2111.06377, section 3 (masking)"
    example = {"augment": {"order": ("crop",), "crop": {"size": 16, "scale": (0.5, 1.0)}}, "patch": 4}

    @property
    def patches(self) -> int:
        return (self.augment.crop.size // self.patch) ** 2

    @property
    def hidden(self) -> int:
        return hidden_patches(self.patches, self.share)

    @model_validator(mode="after")
    def _check_patches(self) -> MaskedViewsSpec:
        if self.augment.jigsaw:
            raise ValueError("jigsaw cuts an image into pieces, and here patches of one image are hidden; leave it out")
        if self.augment.crop.size % self.patch:
            raise ValueError(
                f"patch is {self.patch}, which does not divide a crop of {self.augment.crop.size} pixels; change one"
            )
        if not 0 < self.hidden < self.patches:
            raise ValueError(
                f"a share of {self.share:g} hides {self.hidden} of {self.patches} patches, and some must be hidden and "
                "some visible; change share or patch"
            )
        return self

    def key_flags(self) -> list[bool]:
        return [True]

    def explained_as(self) -> list[str]:
        return [f"1 of {self.augment.crop.size} px"]

    def explained_company(self) -> list[ViewCompany]:
        lines = (
            f"{self.share:.0%} of the patches of {self.patch} px are hidden, one by one",
            "in every crop; each draws for itself",
        )
        return [ViewCompany("mask", [0], lines, draw_scattered(self.share))]


class Decoder(Spec):
    """A narrow Transformer over all patches: ``depth`` blocks of ``width``, with ``heads`` of attention."""

    width: int = Field(512, gt=0, le=65536, multiple_of=4)
    """Dimensions of a token."""
    depth: int = Field(8, gt=0, le=1024)
    """Blocks."""
    heads: int = Field(16, gt=0, le=1024)
    """Heads of attention in each block."""

    @model_validator(mode="after")
    def _check_heads(self) -> Decoder:
        if self.width % self.heads:
            raise ValueError(f"width is {self.width}, which {self.heads} heads do not divide; change one of the two")
        return self


DECODER = Decoder()


class MAESpec(Spec):
    """A Vision Transformer that reads the visible patches alone, and a decoder that predicts the pixels of the rest."""

    kind: Literal["mae"] = "mae"
    builds = ".encoder:MaskedAutoencoder"
    backbone: ViTSpec
    """The encoder, of kind ``vit``; features are those of the complete image."""
    decoder: Decoder = DECODER
    """The decoder, which is left behind after training."""
    needs = {"views": frozenset({"masked images"}), "key_encoder": frozenset({"patches as keys"})}
    gives = frozenset({"predicted patches", "queries at positions", "any length"})
    source = "MAE, arXiv:2111.06377, section 3; code: mae models_mae.py"
    example = {
        "backbone": {"image_size": 16, "patch": 4, "width": 8, "depth": 1, "heads": 2},
        "decoder": {"width": 8, "depth": 1, "heads": 2},
    }

    def explained_sides(self) -> tuple[str, str]:
        return "the patches that are left", "the pixels of each patch"

    @field_validator("backbone")
    @classmethod
    def _check_size(cls, value: ViTSpec) -> ViTSpec:
        if value.any_size:
            raise ValueError("any_size is for crops of several sizes, and here every image has one; set it to false")
        return value


class PatchKeysSpec(Spec):
    """The image's patches themselves, as pixels; nothing is encoded."""

    kind: Literal["patches"] = "patches"
    builds = ".keys:PatchKeys"
    normalize: bool = True
    """Whether each patch is brought to mean 0 and standard deviation 1."""
    needs = {"encoder": frozenset({"predicted patches"}), "negatives": frozenset({"no entries"})}
    gives = frozenset({"keys", "patches as keys"})
    key_weights = "fixed"  # there are none
    source = "MAE, arXiv:2111.06377, section 3 (reconstruction target); code: mae models_mae.py forward_loss"


class SquaredErrorSpec(Spec):
    """The squared difference between the query and the target vector, the mean over dimensions and queries."""

    kind: Literal["squared_error"] = "squared_error"
    builds = ".loss:SquaredError"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "MAE, arXiv:2111.06377, section 3 (reconstruction target)"
