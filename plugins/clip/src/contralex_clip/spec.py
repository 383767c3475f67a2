"""Specs of the encoders, the views and the losses of images and captions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from contralex.plugin import Architecture, Augment, Library, Spec

Width = Annotated[int, Field(gt=0, le=65536)]
Layers = Annotated[int, Field(gt=0, le=1024)]
Vocabulary = Annotated[int, Field(gt=2, le=2**24, description="token ids")]
Context = Annotated[int, Field(gt=2, le=65536, description="token ids of a caption, with the marks of its two ends")]


# Some values must be equal in the views and in the encoder. Views of this kind can be given the right ones, so these
# features are in its `gives`: a refusal then advises other values.
_SAME_IDS, _SAME_SIZE = "the same context and vocabulary", "the same image size"
CAPTIONED = frozenset({"images", "tokens", _SAME_IDS, _SAME_SIZE})  # what views of an image and its caption give


BYTES_VOCAB = 258  # a token for each byte, and two for a caption's ends
BPE_VOCAB = 49408


def _describe_ids(context: int, vocab: int) -> str:
    return f"captions of {context} ids out of {vocab}"


class _TextSpec(Spec):
    """What encoders of token ids share. ``vocab`` and ``context`` are those of the views' tokenizer."""

    vocab: Vocabulary
    """Tokens of the vocabulary."""
    context: Context
    """Tokens of a text, with its beginning and its end."""
    width: Width
    """Dimensions of a token."""
    layers: Layers
    """Blocks."""
    heads: Width
    """Heads of attention in each block."""
    dim: Width
    """Dimensions of the vectors that are looked up."""
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    """The activation of the blocks."""
    normalize: bool = True
    """Whether vectors are brought to unit length."""

    @model_validator(mode="after")
    def _check_heads(self) -> _TextSpec:
        if self.width % self.heads:
            raise ValueError(f"width is {self.width}, which {self.heads} heads cannot share evenly")
        return self

    def requires(self) -> list[tuple[str, frozenset[str]]]:
        return [*super().requires(), ("views", frozenset({_describe_ids(self.context, self.vocab), _SAME_IDS}))]

    def offers(self) -> frozenset[str]:
        return self.gives - {"any length" if self.normalize else "unit length"}


class ClipViTSpec(Spec):
    """A ViT of timm's by name (``pip install 'contralex[timm]'``), whose weights begin as those of CLIP's or SigLIP's
    official code do.
    """

    kind: Literal["clip_vit"] = "clip_vit"
    builds = ".initialization:clip_vit"
    name: str
    """The name of a timm ViT."""
    init: Literal["clip", "siglip"] = "clip"
    """Whose first weights it has: those of CLIP's or of SigLIP's code."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """The rate at which the last block is left out in training."""
    source = "CLIP, arXiv:2103.00020; code: openai/CLIP model.py, google-research/big_vision vit.py"
    example = {"name": "test_vit"}

    def architecture(self, library: Library) -> Architecture | str:
        return Architecture(self.name, any_size=True) if library == "timm" else ""


class TextEncoderSpec(_TextSpec):
    """CLIP's text tower: token ids through a transformer, read where the caption ends, then projected."""

    kind: Literal["text"] = "text"
    builds = ".encoders:TextEncoder"
    vocab: Vocabulary = BPE_VOCAB
    """Tokens of the vocabulary, as the views' tokenizer has them."""
    context: Context = 77
    """Tokens of a text, as the views make them."""
    width: Width = 512
    """Dimensions of a token."""
    layers: Layers = 12
    """Blocks."""
    heads: Width = 8
    """Heads of attention in each block."""
    dim: Width = 512
    """Dimensions of the vectors that are looked up, which must be the image tower's."""
    causal: bool = True
    """Whether a token attends only to itself and those before it."""
    pool: Literal["end", "last"] = "end"
    """Where the caption is read: at its ``end``, or at the ``last`` position (SigLIP)."""
    projection_bias: bool = False
    """Whether the projection has a bias (SigLIP's has)."""
    init: Literal["clip", "siglip"] = "clip"
    """Whose first weights it has: those of CLIP's or of SigLIP's code."""
    needs = {"views": frozenset({"tokens"})}
    gives = frozenset({"one query a view", "unit length", "any length"})
    source = "CLIP, arXiv:2103.00020, section 2.4; code: openai/CLIP model.py"
    example = {"vocab": 258, "context": 40, "width": 8, "layers": 1, "heads": 2, "dim": 8}


class SharedTransformerSpec(_TextSpec):
    """One transformer for images and captions, with one last norm and one projection; only what enters it differs.

    ``image_size`` and ``patch``, in pixels: a square image is cut into square patches, each a token of the transformer.
    ``vocab`` and ``context``: as the views' tokenizer has them. ``width``, ``layers``, ``heads``, ``dim``,
    ``activation`` and ``normalize``: as of ``text``.
    """

    kind: Literal["shared_transformer"] = "shared_transformer"
    builds = ".encoders:SharedTransformer"
    image_size: int = Field(224, gt=0, le=8192)
    """Pixels of a side."""
    patch: int = Field(32, gt=0, le=8192)
    """Pixels of a patch's side."""
    vocab: Vocabulary = BPE_VOCAB
    """Tokens of the vocabulary."""
    context: Context = 77
    """Tokens of a text, with its beginning and its end."""
    width: Width = 768
    """Dimensions of a token."""
    layers: Layers = 12
    """Blocks."""
    heads: Width = 12
    """Heads of attention in each block."""
    dim: Width = 512
    """Dimensions of the vectors that are looked up."""
    needs = {"views": frozenset({"tokens"})}
    gives = frozenset({"one query a view", "unit length", "any length", "images and tokens"})
    source = "after MS-CLIP, arXiv:2207.12661, section 3 (a transformer that both modalities share)"
    example = {
        **{"image_size": 12, "patch": 6, "vocab": 258, "context": 40, "width": 8, "layers": 1, "heads": 2, "dim": 8},
    }

    @model_validator(mode="after")
    def _check_patches(self) -> SharedTransformerSpec:
        if self.image_size % self.patch:
            raise ValueError(
                f"image_size is {self.image_size}, which patches of {self.patch} pixels do not fill evenly"
            )
        return self

    def requires(self) -> list[tuple[str, frozenset[str]]]:
        size = self.image_size
        return [*super().requires(), ("views", frozenset({f"images of {size}x{size}", _SAME_SIZE}))]


class ByteTokenizerSpec(Spec):
    """A token for each byte of the caption, in lower case, and two for its ends: 258 ids. It needs no package."""

    kind: Literal["bytes"] = "bytes"
    builds = ".tokens:ByteTokenizer"

    @property
    def vocab(self) -> int:
        return BYTES_VOCAB


class ClipTokenizerSpec(Spec):
    """CLIP's byte-pair encoding of 49408 ids, from the package open_clip_torch, which brings its table along."""

    kind: Literal["clip_bpe"] = "clip_bpe"
    builds = ".tokens:ClipTokenizer"

    @property
    def vocab(self) -> int:
        return BPE_VOCAB


Tokenizer = Annotated[ByteTokenizerSpec | ClipTokenizerSpec, Field(discriminator="kind")]


class ImageTextSpec(Spec):
    """View 0 is the image, view 1 its caption as token ids. Evaluation sees the middle square."""

    kind: Literal["image_text"] = "image_text"
    builds = ".views:ImageTextViews"
    augment: Augment
    """What happens to the image."""
    square: bool = True
    """Whether a random square, as large as the image allows, is cropped before ``augment``. It is all the augmentation
    that CLIP has."""
    tokenizer: Tokenizer
    """How a caption becomes tokens: its ``bytes``, or CLIP's byte pairs (``clip_bpe``)."""
    context: Context = 77
    """Token ids of a caption; a longer one is cut and keeps its end, a shorter one is filled with zeros."""
    needs = {"data": frozenset({"captions"}), "encoder": frozenset({"an encoder a view", "images and tokens"})}
    gives = CAPTIONED
    source = "CLIP, arXiv:2103.00020, section 2.4; code: openai/CLIP clip.py"
    example = {
        "augment": {"order": ("crop",), "crop": {"size": 12, "scale": (0.5, 1.0)}},
        "tokenizer": {"kind": "bytes"},
        "context": 40,
    }

    def key_flags(self) -> list[bool]:
        return [True, True]

    def offers(self) -> frozenset[str]:
        return offer_captions(self.augment, self.tokenizer, self.context)


def offer_captions(augment: Augment, tokenizer: Tokenizer, context: int) -> frozenset[str]:
    """What views of an image and its caption offer with these values, of all that they give."""
    size = augment.crop.size
    return frozenset({"images", "tokens", _describe_ids(context, tokenizer.vocab), f"images of {size}x{size}"})


def has_captions(views: Spec) -> bool:
    """Whether view 0 is an image and view 1 its caption, so that images can be classified by names."""
    return views.gives >= CAPTIONED


# Scores are cosines, which the learned scale is made for.
_NEEDS = {
    "targets": frozenset({"index"}),
    "negatives": frozenset({"entries"}),
    "encoder": frozenset({"unit length"}),
}


class ClipLossSpec(Spec):
    """Softmax cross-entropy of the positive against all entries, with a temperature that is learned."""

    kind: Literal["clip"] = "clip"
    builds = ".losses:ClipLoss"
    temperature: float = Field(0.07, gt=0, le=1)
    """The first value of the learnt temperature."""
    max_scale: float = Field(100.0, gt=1, le=1e4)
    """The largest factor of the scores, which is the inverse of the temperature and at least 1."""
    needs = _NEEDS
    learns = True
    source = "CLIP, arXiv:2103.00020, Figure 3 and section 2.5; code: openai/CLIP model.py, open_clip loss.py"

    @model_validator(mode="after")
    def _check_scale(self) -> ClipLossSpec:
        if 1 / self.temperature > self.max_scale * (1 + 1e-9):
            raise ValueError(
                f"temperature {self.temperature:g} multiplies scores by {1 / self.temperature:g}, which is above "
                f"max_scale {self.max_scale:g}"
            )
        return self


class SigmoidLossSpec(Spec):
    """Each pair of a query and an entry is a question of its own, whether they belong together, answered by a sigmoid.

    ``scale`` multiplies the scores and ``bias`` is added to them; both are what the learned values start from.
    """

    kind: Literal["sigmoid"] = "sigmoid"
    builds = ".losses:SigmoidLoss"
    scale: float = Field(10.0, gt=0, le=1e4)
    """The first value of the learnt factor of the scores."""
    bias: float = Field(-10.0, ge=-1e3, le=1e3)
    """The first value of the learnt bias of the scores."""
    needs = _NEEDS
    learns = True
    source = "SigLIP, arXiv:2303.15343, Eq. 3 and Algorithm 1; code: big_vision siglip.py, open_clip loss.py"
