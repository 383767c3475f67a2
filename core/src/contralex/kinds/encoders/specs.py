"""Specs of the core's encoders: a backbone, an MLP projector and predictor, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from contralex.errors import ContralexError
from contralex.lookup.names import IMAGE
from contralex.plugins.spec import Slot, Spec, leave_out_defaults

Channels = Annotated[int, Field(gt=0, le=4096)]
OutputName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
"""Marks a field that holds the name of an output of the encoder."""
_TINY = {
    "kind": "image",
    "backbone": {"kind": "conv", "widths": (6, 8), "strides": (2, 2)},
    "projector": ({"width": 8, "activation": "relu"}, {"width": 8}),
}


class Layer(Spec):
    """A linear layer, then BatchNorm, then an activation."""

    width: int = Field(gt=0, le=2**20)
    """Dimensions of the layer's output."""
    bias: bool = True
    """Whether the linear layer has a bias."""
    norm: Literal["none", "batch"] = "none"
    """The norm after the linear layer: BatchNorm (``batch``) or none."""
    affine: Literal["full", "scale", "none"] = "full"
    """Whether BatchNorm has a scale and a shift (``full``), only a scale (SimCLR's last layer), or neither
    (SimSiam's)."""
    activation: Literal["none", "relu", "gelu"] = "none"
    """The activation at the end."""
    init_std: float | None = Field(None, ge=0, le=100)
    """The standard deviation of the first weights, with biases 0; null: torch's default."""


class JigsawHead(Spec):
    """How the pieces of a jigsaw become one vector: layers of ``piece`` on each piece's features, then layers of
    ``joined`` on all ``pieces`` of them in a row.
    """

    pieces: int = Field(9, gt=1, le=256)
    """Number of pieces of a view."""
    piece: tuple[Layer, ...] = Field(min_length=1)
    """Layers on the features of each piece."""
    joined: tuple[Layer, ...] = Field(min_length=1)
    """Layers on all pieces in a row."""


class Output(Spec):
    """What else may be looked up of an image: layers on the backbone's features, or on those of each of its places."""

    reads: Literal["pooled", "places", "masked", "coordinates"] = "pooled"
    """The features of the image (``pooled``), or those of each of the backbone's ``places``: of its map, or of the
    patches. ``masked``: queries are the patches that a view's mask hides, and keys all patches of the whole image, as
    the key encoder sees it (iBOT). ``coordinates``: no features, but the row and the column of each place in its image,
    in pixels, for parts that match places by where they lie (VICRegL)."""
    projector: tuple[Layer, ...] = ()
    """Layers from the features to the vectors that are looked up; none: the features themselves."""
    predictor: tuple[Layer, ...] = ()
    """Layers after the projector on the query's side alone."""
    head: OutputName | None = None
    """The output whose projector and predictor it shares, ``image`` for the encoder's; null: it has its own."""
    mean: bool = False
    """Whether the vectors of an image's places are averaged, after the layers."""
    normalize: bool = True
    """Whether queries and keys are brought to unit length."""

    @model_validator(mode="after")
    def _check(self) -> Output:
        if self.head is not None and (self.projector or self.predictor):
            raise ValueError("head shares the layers of another output; leave projector and predictor out")
        if self.reads == "coordinates" and (self.projector or self.predictor or self.head or self.mean):
            raise ValueError("coordinates are no features; leave projector, predictor, head and mean out")
        if self.mean and self.reads != "places":
            raise ValueError("mean averages over places; set reads to places")
        return self


class ImageSpec(Spec):
    """A backbone, a projector, and perhaps a predictor on the query's side."""

    kind: Literal["image"] = "image"
    builds = ".image:ImageEncoder"
    backbone: Annotated[Spec, Slot("backbone")]
    """The network from an image to its features."""
    projector: tuple[Layer, ...] = ()
    """Layers from the features to the vectors that are looked up; none: the features themselves."""
    predictor: tuple[Layer, ...] = ()
    """Layers after the projector on the query's side alone."""
    batching: Literal["together", "apart"] = "apart"
    """Whether the views of a sample go through the network ``together``, as one batch (SimCLR; crops of one size each
    in SwAV), or ``apart`` (BYOL, SimSiam): BatchNorm's statistics, and so the gradients, differ."""
    normalize: bool = True
    """Whether queries and keys are brought to unit length."""
    jigsaw: JigsawHead | None = None
    """The head of views that are cut into pieces, in place of the projector."""
    outputs: dict[OutputName, Output] = {}
    """What else look-ups may ask for (``of``), by names of your own, beside the projector's vectors, which are called
    ``image``."""
    added = frozenset({"outputs"})
    needs = {"views": frozenset({"images"})}
    gives = frozenset(
        {
            "one query a view",
            "unit length",
            "any length",
            "a head for pieces",
            "a use for masks",
            "a use for boxes",
            "queries at positions",
            "coordinates",
        }
    )
    source = "MoCo, arXiv:1911.05722; SimCLR, arXiv:2002.05709; BYOL, arXiv:2006.07733, section 3.1"
    example = {key: value for key, value in _TINY.items() if key != "kind"}

    @model_validator(mode="after")
    def _check_outputs(self) -> ImageSpec:
        if IMAGE in self.outputs:
            raise ValueError(f"outputs: {IMAGE} is the name of the projector's vectors; choose another name")
        with_layers = [
            IMAGE,
            *(name for name, each in self.outputs.items() if each.head is None and each.reads != "coordinates"),
        ]
        for name, output in self.outputs.items():
            if output.head is not None and output.head not in with_layers:
                there = ", ".join(with_layers)
                raise ValueError(
                    f"outputs.{name}.head is {output.head}, which has no layers of its own; those with are {there}"
                )
        return self

    _written = leave_out_defaults("outputs")

    def offers(self) -> frozenset[str]:
        unused = {"any length" if self.normalize else "unit length", "queries at positions"}
        if not self.jigsaw:
            unused.add("a head for pieces")
        if not self._has("masked"):
            unused.add("a use for masks")
        if not self._has("coordinates"):
            unused |= {"a use for boxes", "coordinates"}
        return self.gives - unused

    def _has(self, reads: str) -> bool:
        """Whether one of the further outputs reads this."""
        return any(output.reads == reads for output in self.outputs.values())

    def output_names(self) -> tuple[str, ...]:
        return (IMAGE, *self.outputs)

    def offers_of(self, output: str) -> frozenset[str]:
        if output == IMAGE:
            return self.offers()
        asked = self.outputs[output]
        if asked.reads == "coordinates":
            return frozenset({"coordinates"})
        has_places = asked.reads != "pooled" and not asked.mean
        length = "unit length" if asked.normalize else "any length"
        offered = {length, "queries at positions" if has_places else "one query a view"}
        return frozenset(offered | ({"coordinates"} if self._has("coordinates") else set()))

    def requires(self) -> list[tuple[str, frozenset[str]]]:
        needs = list(self.needs.items())
        if self.jigsaw:
            needs.append(("views", frozenset({"pieces"})))
        if any(output.reads != "pooled" for output in self.outputs.values()):
            needs.append(("encoder.backbone", frozenset({"places"})))
        if self._has("coordinates"):
            needs.append(("views", frozenset({"boxes"})))
        if self._has("masked"):
            needs += [("views", frozenset({"masks"})), ("encoder.backbone", frozenset({"a mask token"}))]
        return needs

    def explained_sides(self) -> tuple[str, str] | None:
        return ("what a mask leaves of the image", "the whole image") if self._has("masked") else None

    def with_logits(self, classes: int, from_layer: int) -> tuple[Spec, str]:
        if not 0 <= from_layer <= len(self.projector):
            count = len(self.projector)
            raise ContralexError(
                f"--from-layer {from_layer}: the projector has {count} layers; give a number from 0 to {count}."
            )
        kept = self.projector[:from_layer]
        index = sum(1 + (layer.norm != "none") + (layer.activation != "none") for layer in kept)  # among the modules
        logits = Layer(width=classes, init_std=0.0)  # begins without an opinion
        # Heads for pieces and for other outputs go, too: a classifier has one.
        made = {"projector": (*kept, logits), "predictor": (), "normalize": False, "jigsaw": None, "outputs": {}}
        return self.model_copy(update=made), f"projector.{index}"


class TowersSpec(Spec):
    """An encoder for each view: view 0 goes to the first of ``towers``, view 1 to the second, and so on."""

    kind: Literal["towers"] = "towers"
    builds = ".towers:TowersEncoder"
    towers: dict[str, Annotated[Spec, Slot("encoder")]]
    """Encoders by names of your own, in the order of the views; all give vectors of one width."""
    features: Literal["first", "concatenated"]
    """The features that evaluation and export use: the ``first`` encoder's (CLIP's images), or those of all encoders,
    ``concatenated``. The channels of an image are then divided among the encoders (CMC's L and ab)."""
    channels: tuple[Channels, ...] = ()
    """Channels of each encoder, if the channels of one image are divided among them."""
    gives = frozenset({"one query a view", "unit length", "any length", "an encoder a view"})
    source = "CMC, arXiv:1906.05849, section 3.2; CLIP, arXiv:2103.00020, section 2.3"
    example = {"features": "first", "towers": {"one": _TINY, "other": _TINY}}

    @model_validator(mode="after")
    def _check(self) -> TowersSpec:
        if len(self.towers) < 2:
            raise ValueError("towers needs an encoder for each of at least two views; for one, write it alone")
        check_channels(self.channels, self.features, len(self.towers))
        return self

    def kept_backbone(self) -> Spec | None:
        return next(iter(self.towers.values())).kept_backbone() if self.features == "first" else None

    def without_published_weights(self) -> Spec:
        towers = {name: tower.without_published_weights() for name, tower in self.towers.items()}
        return self.model_copy(update={"towers": towers})

    def output_names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for tower in self.towers.values() for name in tower.output_names()))

    def offers_of(self, output: str) -> frozenset[str]:
        having = [tower for tower in self.towers.values() if output in tower.output_names()]
        return frozenset.intersection(*(tower.offers_of(output) for tower in having)) | {"an encoder a view"}

    def offers(self) -> frozenset[str]:
        common = frozenset.intersection(*(tower.offers() for tower in self.towers.values()))
        return common | {"an encoder a view"}

    def requires(self) -> list[tuple[str, frozenset[str]]]:
        needs = [(name, *need) for name, tower in self.towers.items() for need in tower.requires()]
        return list(dict.fromkeys((_within(f"towers.{name}", other), wanted) for name, other, wanted in needs))


def _within(tower: str, slot: str) -> str:
    """Where a tower finds a slot: what is within an encoder is within the tower."""
    encoder, dot, below = slot.partition(".")
    return f"{encoder}.{tower}.{below}" if encoder == "encoder" and dot else slot


def check_channels(channels: Sequence[int], features: str, towers: int) -> None:
    """Raises ValueError where channels are missing for a tower, or are given although towers do not share an image."""
    wanted = towers if features == "concatenated" else 0
    if len(channels) != wanted:
        raise ValueError(
            f"channels has {len(channels)} numbers, where features: {features} and {towers} towers need {wanted}"
        )
