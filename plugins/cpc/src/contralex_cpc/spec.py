"""Specs of CPC: two encoders (image patches, sequences), their views, and a folder of sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from contralex.plugin import LocalPath, Spec, path_exists

Count = Annotated[int, Field(gt=0, le=65_536)]
Probability = Annotated[float, Field(ge=0, le=1)]


class GRUContextSpec(Spec):
    """A GRU down each column of the grid: the context of a patch is its column from the top down to itself."""

    kind: Literal["gru"] = "gru"
    builds = ".network:gru_context"
    width: int = Field(256, gt=0, le=65_536)
    """Dimensions of the context."""


class PixelCNNContextSpec(Spec):
    """``blocks`` residual blocks of masked convolutions: the context of a patch is its row and the rows above.

    Each is 1x1 to ``width``, 1x3, a row of zeros on top, 2x1, 1x1 back (the pseudocode of CPC v2's appendix).
    """

    kind: Literal["pixelcnn"] = "pixelcnn"
    builds = ".network:pixelcnn_context"
    blocks: int = Field(5, gt=0, le=65_536)
    """Residual blocks."""
    width: int = Field(256, gt=0, le=65_536)
    """Channels inside a block."""


class PatchNetworkSpec(Spec):
    """A pre-activation ResNet without BatchNorm, of bottleneck blocks; a patch becomes the mean of its last map.

    ResNet-v2-101 up to its third stage is blocks [3, 4, 23], widths [64, 128, 256] and stem ``imagenet``.
    """

    builds = ".network:patch_network"
    blocks: tuple[Count, ...] = (3, 4, 23)
    """Blocks of each stage."""
    widths: tuple[Count, ...] = (64, 128, 256)
    """Channels of each stage's bottleneck."""
    outputs: tuple[Count, ...] | None = None
    """Channels that each stage ends in; null: 4x ``widths``."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """The first layers: 7x7 of stride 2 and max-pooling (``imagenet``), or 3x3 of stride 1 (``small``)."""
    norm: Literal["none", "layer"] = "none"
    """Before each activation: nothing (``none``), or LayerNorm over all that one patch has (``layer``)."""

    @model_validator(mode="after")
    def _check_stages(self) -> PatchNetworkSpec:
        if len(self.blocks) != len(self.widths) or not self.blocks:
            raise ValueError(f"one width for each stage: {len(self.blocks)} stages and {len(self.widths)} widths")
        if self.outputs and len(self.outputs) != len(self.blocks):
            raise ValueError(f"one output for each stage: {len(self.blocks)} stages, {len(self.outputs)} outputs")
        return self


class CPCPatchesSpec(Spec):
    """CPC of an image: encodes each patch of a grid, and predicts the patches up to ``steps`` rows away."""

    kind: Literal["cpc_patches"] = "cpc_patches"
    builds = ".encoders:PatchEncoder"
    grid: int = Field(gt=1, le=65_536)
    """Patches along a side, as the views make them."""
    network: PatchNetworkSpec
    """The network from a patch to its latent vector."""
    context: Annotated[GRUContextSpec | PixelCNNContextSpec, Field(discriminator="kind")]
    """What sums up the rows that are seen."""
    steps: int = Field(5, gt=0, le=65_536)
    """Rows that are predicted, the nearest first."""
    skip: int = Field(0, ge=0, le=65_536)
    """Nearest rows that are not predicted, because patches that overlap the context tell little."""
    directions: tuple[Literal["down", "up", "left", "right"], ...] = Field(("down",), min_length=1)
    """Which way is predicted, each with a context and predictors of its own; ``down`` is what lies below."""
    target_dim: int | None = Field(None, gt=0, le=65_536)
    """Dimensions that latents are brought to, linearly, to be looked up; null leaves them as they are."""
    prediction_scale: float = Field(1.0, gt=0, le=1e3)
    """Multiplies predictions."""
    needs = {"views": frozenset({"patches"})}
    gives = frozenset({"queries at positions"})
    source = "CPC, arXiv:1807.03748, section 3.2; CPC v2, arXiv:1905.09272, section 3 and appendix"
    example = {
        "grid": 3,
        "network": {"blocks": (1, 1), "widths": (4, 6), "stem": "small"},
        "context": {"kind": "gru", "width": 8},
        "steps": 1,
    }

    @model_validator(mode="after")
    def _check_grid(self) -> CPCPatchesSpec:
        if self.steps >= self.grid:
            raise ValueError(
                f"steps is {self.steps}, and a grid of {self.grid} rows has at most {self.grid - 1} below a row"
            )
        if self.skip >= self.steps:
            raise ValueError(f"skip is {self.skip} and steps {self.steps}, so nothing is predicted; lower skip")
        if len(set(self.directions)) < len(self.directions):
            raise ValueError("directions names one twice; each has one context, so name it once")
        return self


class CPCSequenceSpec(Spec):
    """CPC of a sequence: strided convolutions to latents, a GRU to contexts, predictions up to ``steps`` ahead.

    ``channels`` of the input; ``width`` of every latent; ``kernels`` and ``strides`` of the convolutions;
    ``context`` the GRU's width.
    """

    kind: Literal["cpc_sequence"] = "cpc_sequence"
    builds = ".encoders:SequenceEncoder"
    channels: int = Field(1, gt=0, le=65_536)
    """Channels of the input."""
    width: int = Field(512, gt=0, le=65_536)
    """Channels of every convolution."""
    kernels: tuple[Count, ...] = (10, 8, 4, 4, 4)
    """The kernel of each convolution."""
    strides: tuple[Count, ...] = (5, 4, 2, 2, 2)
    """The stride of each convolution."""
    context: int = Field(256, gt=0, le=65_536)
    """Dimensions of the GRU's state."""
    steps: int = Field(12, gt=0, le=65_536)
    """Latents that are predicted."""
    needs = {"views": frozenset({"sequence"})}
    gives = frozenset({"queries at positions"})
    source = "CPC, arXiv:1807.03748, section 3.1"
    example = {"width": 8, "kernels": (8, 4), "strides": (4, 2), "context": 8, "steps": 3}

    @model_validator(mode="after")
    def _check_layers(self) -> CPCSequenceSpec:
        if len(self.kernels) != len(self.strides) or not self.kernels:
            raise ValueError(f"one stride for each kernel: {len(self.kernels)} kernels and {len(self.strides)} strides")
        return self


class Affine(Spec):
    """A rotation by up to ``degrees`` either way and a shear by up to ``shear`` degrees, with probability ``p``."""

    degrees: float = Field(ge=0, le=180)
    """The largest rotation either way, in degrees."""
    shear: float = Field(ge=0, lt=90)
    """The largest shear either way, in degrees."""
    p: Probability
    """The probability that it happens."""


class Colours(Spec):
    """Random ``brightness``, ``contrast`` and ``saturation``, each by a factor within 1 ± its number, with probability
    ``p``.
    """

    brightness: float = Field(ge=0, le=1)
    """The brightness changes by a factor within 1 ± this number."""
    contrast: float = Field(ge=0, le=1)
    """The contrast changes by a factor within 1 ± this number."""
    saturation: float = Field(ge=0, le=1)
    """The saturation changes by a factor within 1 ± this number."""
    p: Probability
    """The probability that it happens."""


class EachPatch(Spec):
    """What happens to each patch by itself, in this order, whatever happens to its neighbours.

    ``affine`` and ``flip`` (a mirror image) move pixels; ``colours`` and ``gray`` (greyscale) change them;
    ``drop_channels`` keeps one of the three colour channels, and replaces the others by faint noise about mid-grey.
    ``flip``, ``gray`` and ``drop_channels`` are probabilities.
    """

    affine: Affine | None = None
    """A rotation and a shear; null: none."""
    flip: Probability = 0.0
    """The probability of a mirror image."""
    colours: Colours | None = None
    """Random changes of colour; null: none."""
    gray: Probability = 0.0
    """The probability of greyscale."""
    drop_channels: Probability = 0.0
    """The probability that one channel alone is kept, and the others become faint noise."""


class PatchesSpec(Spec):
    """One view: a grid of overlapping patches of a random crop of the image.

    The image's short side becomes ``resize`` pixels, of which a random square of ``crop`` is kept, mirrored half
    the time and turned grey; patches of ``patch``x``patch`` pixels are cut every ``stride``, and of each a random
    ``patch_crop`` square is kept and padded back to ``patch``.
    """

    kind: Literal["patches"] = "patches"
    builds = ".views:PatchViews"
    resize: int = Field(300, gt=0, le=8192)
    """Pixels of the image's short side after resizing."""
    crop: int = Field(256, gt=0, le=8192)
    """Pixels of a side of the random square."""
    patch: int = Field(64, gt=0, le=8192)
    """Pixels of a patch's side."""
    stride: int = Field(32, gt=0, le=8192)
    """Pixels from one patch to the next."""
    patch_crop: int = Field(60, gt=0, le=8192)
    """Pixels of a side of the random square that is kept of each patch."""
    flip: bool = True
    """Whether the crop is mirrored half the time."""
    gray: bool = True
    """Whether the crop becomes grey."""
    each: EachPatch | None = None
    """What else happens to a patch by itself."""
    needs = {"data": frozenset({"images"})}
    gives = frozenset({"patches"})
    source = "CPC, arXiv:1807.03748, section 3.2; CPC v2, arXiv:1905.09272, section 3"
    example = {"resize": 20, "crop": 16, "patch": 8, "stride": 4, "patch_crop": 6, "each": {"drop_channels": 0.5}}

    @model_validator(mode="after")
    def _check_sizes(self) -> PatchesSpec:
        if not self.patch_crop <= self.patch <= self.crop <= self.resize:
            raise ValueError("patch_crop, patch, crop and resize each fit into the next")
        if (self.crop - self.patch) % self.stride:
            raise ValueError(
                f"stride {self.stride} does not fill a crop of {self.crop} with patches of {self.patch} exactly"
            )
        return self

    def key_flags(self) -> list[bool]:
        return [True]


class WindowSpec(Spec):
    """One view: a random window of ``length`` samples of a sequence (channels, time)."""

    kind: Literal["window"] = "window"
    builds = ".views:WindowViews"
    length: int = Field(20480, gt=0, le=2**24)
    """Samples of the recording."""
    needs = {"data": frozenset({"sequence"})}
    gives = frozenset({"sequence"})
    source = "CPC, arXiv:1807.03748, section 3.1"
    example = {"length": 256}

    def key_flags(self) -> list[bool]:
        return [True]


class SequenceFolderSpec(Spec):
    """A folder of sequences: ``.wav`` files (PCM), or ``.npy`` arrays of shape (time,) or (channels, time).

    Splits are found in folders, and classes by ``labels``, as of ``image_folder``; where there is no split to evaluate
    on, ``held_out`` of the labelled files are kept for it.
    """

    kind: Literal["sequence_folder"] = "sequence_folder"
    builds = ".sequences:SequenceSource"
    root: Annotated[str, LocalPath()]
    """The folder that holds the recordings."""
    labels: Literal["auto", "folders", "none"] = "auto"
    """Whether the folders are classes: ``folders`` insists, ``none`` ignores them, ``auto`` looks."""
    held_out: float = Field(0.2, ge=0, lt=1)
    """The fraction of each class that is kept for evaluation, where there is no folder for it."""
    gives = frozenset({"sequence", "labels"})
    source = "any folder of recordings"
    example = {"root": "."}

    @field_validator("root")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value:
            raise ValueError("a folder is needed")
        return value

    @classmethod
    def of_path(cls, path: Path) -> dict[str, str] | None:
        return {"root": str(path)} if path.is_dir() else None

    def read_from(self) -> str:
        return self.root

    def absent(self) -> tuple[str, str] | None:
        return None if path_exists(self.root) else ("root", self.root)

    def offers(self) -> frozenset[str]:
        return self.gives - {"labels"} if self.labels == "none" else self.gives

    @classmethod
    def tiny(cls, folder: str) -> SequenceFolderSpec:
        from contralex_cpc.sequences import write_tiny

        write_tiny(folder)
        return cls(root=folder)
