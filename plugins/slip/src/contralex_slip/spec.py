"""The specs of SLIP's views and of its encoder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from contralex.plugin import Augment, Layer, Slot, Spec
from contralex_clip.spec import CAPTIONED, Context, Tokenizer, offer_captions

IMAGE, SELFSUP = "image", "selfsup"  # the outputs of the encoder
_CROPS = "crops after the caption"
_TINY_CROP = {"order": ("crop",), "crop": {"size": 12, "scale": (0.5, 1.0)}}


class ImageTextCropsSpec(Spec):
    """View 0 is the image, view 1 its caption as token ids, and views 2, 3, ... are further crops of the image.
    Evaluation sees the middle square."""

    kind: Literal["image_text_crops"] = "image_text_crops"
    builds = ".views:ImageTextCropsViews"
    augment: Augment
    """What happens to the image that is looked up beside its caption."""
    crops: Augment
    """What happens to the image in the views after the caption."""
    count: int = Field(2, gt=0, le=256)
    """Number of views after the caption."""
    tokenizer: Tokenizer
    """How a caption becomes tokens: its ``bytes``, or CLIP's byte pairs (``clip_bpe``)."""
    context: Context = 77
    """Token ids of a caption; a longer one is cut and keeps its end, a shorter one is filled with zeros."""
    needs = {"data": frozenset({"captions"}), "encoder": frozenset({_CROPS})}
    gives = CAPTIONED | {_CROPS}
    source = "SLIP, arXiv:2112.12750, section 3; code: facebookresearch/SLIP datasets.py"
    example = {"augment": _TINY_CROP, "crops": _TINY_CROP, "tokenizer": {"kind": "bytes"}, "context": 40}

    def key_flags(self) -> list[bool]:
        return [True] * (2 + self.count)

    def offers(self) -> frozenset[str]:
        return offer_captions(self.augment, self.tokenizer, self.context) | {_CROPS}


class SlipTowersSpec(Spec):
    """A tower for images and one for captions; views after these two go through the image tower's backbone as well, and
    then to a head of their own, whose vectors are the output ``selfsup``."""

    kind: Literal["slip_towers"] = "slip_towers"
    builds = ".encoder:SlipTowers"
    backbone: Annotated[Spec, Slot("backbone")]
    """The network from an image to its features."""
    projector: tuple[Layer, ...] = Field(min_length=1)
    """Layers from the features to the vectors that are looked up among those of captions."""
    text: Annotated[Spec, Slot("encoder")]
    """The encoder of the captions, which gives vectors as wide as the projector's."""
    selfsup: tuple[Layer, ...] = ()
    """Layers from the features to the vectors that are looked up among those of other crops; none: there is no such
    output."""
    needs = {"views": frozenset({_CROPS})}
    gives = frozenset({"one query a view", "unit length", "an encoder a view", _CROPS})
    source = "SLIP, arXiv:2112.12750, section 3 and Algorithm 1; code: facebookresearch/SLIP models.py"
    example = {
        "backbone": {"kind": "conv", "widths": (6, 8), "strides": (2, 2)},
        "projector": ({"width": 8, "bias": False},),
        "text": {"kind": "text", "vocab": 258, "context": 40, "width": 8, "layers": 1, "heads": 2, "dim": 8},
    }

    def output_names(self) -> tuple[str, ...]:
        return (IMAGE, SELFSUP) if self.selfsup else (IMAGE,)

    def offers(self) -> frozenset[str]:
        return self.gives if "unit length" in self.text.offers() else self.gives - {"unit length"}

    def offers_of(self, output: str) -> frozenset[str]:
        return frozenset({"one query a view", "unit length"}) if output == SELFSUP else self.offers()

    def requires(self) -> list[tuple[str, frozenset[str]]]:
        return [*super().requires(), *self.text.requires()]
