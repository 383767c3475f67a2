"""Specs of CPC: two encoders (image patches, sequences), their views, and a folder of sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

from contralex import Spec

if TYPE_CHECKING:
    from contralex import Encoder, Views
    from contralex.data.base import Source

Count = Annotated[int, Field(gt=0)]


class Rows(Spec):
    """A GRU that runs down each column of the grid: the context of a patch is what stands above it, and itself."""

    kind: Literal["gru"] = "gru"
    width: int = Field(256, gt=0)


class PixelCNN(Spec):
    """``blocks`` residual blocks of masked convolutions: the context of a patch is its row and the rows above.

    Each is 1x1 to ``width``, 1x3, a row of zeros on top, 2x1, 1x1 back (the pseudocode of CPC v2's appendix).
    """

    kind: Literal["pixelcnn"] = "pixelcnn"
    blocks: int = Field(5, gt=0)
    width: int = Field(256, gt=0)


class PatchNet(Spec):
    """A pre-activation ResNet without BatchNorm, of bottleneck blocks; a patch becomes the mean of its last map.

    ``blocks``: of each stage; a stage's output has 4x ``widths`` channels. ResNet-v2-101 up to its third stage is
    blocks [3, 4, 23], widths [64, 128, 256], stem ``imagenet`` (7x7 stride 2, max-pooling); ``small`` is 3x3 stride 1.
    """

    blocks: tuple[Count, ...] = (3, 4, 23)
    widths: tuple[Count, ...] = (64, 128, 256)
    stem: Literal["imagenet", "small"] = "imagenet"

    @model_validator(mode="after")
    def _one_width_a_stage(self) -> PatchNet:
        if len(self.blocks) != len(self.widths) or not self.blocks:
            raise ValueError(f"one width for each stage: {len(self.blocks)} stages and {len(self.widths)} widths")
        return self


class CPCPatches(Spec):
    """CPC of an image: encodes each patch of a grid, and predicts the patches up to ``steps`` rows below."""

    kind: Literal["cpc_patches"] = "cpc_patches"
    grid: int = Field(gt=1, description="patches along a side, as the views make them")
    network: PatchNet
    context: Annotated[Rows | PixelCNN, Field(discriminator="kind")]
    steps: int = Field(5, gt=0, description="rows")
    needs = {"views": frozenset({"patches"})}
    gives = frozenset({"queries at positions"})
    source = "CPC, arXiv:1807.03748, section 3.2"
    example = {
        "grid": 3,
        "network": {"blocks": (1, 1), "widths": (4, 6), "stem": "small"},
        "context": {"kind": "gru", "width": 8},
        "steps": 1,
    }

    @model_validator(mode="after")
    def _in_the_grid(self) -> CPCPatches:
        if self.steps >= self.grid:
            raise ValueError(
                f"steps is {self.steps}, and a grid of {self.grid} rows has at most {self.grid - 1} below a row"
            )
        return self

    def build(self) -> Encoder:
        from contralex_cpc.encoders import PatchEncoder

        return PatchEncoder(self)


class CPCSequence(Spec):
    """CPC of a sequence: strided convolutions to latents, a GRU to contexts, predictions up to ``steps`` ahead.

    ``channels`` of the input; ``width`` of every latent; ``kernels`` and ``strides`` of the convolutions;
    ``context`` the GRU's width.
    """

    kind: Literal["cpc_sequence"] = "cpc_sequence"
    channels: int = Field(1, gt=0)
    width: int = Field(512, gt=0)
    kernels: tuple[Count, ...] = (10, 8, 4, 4, 4)
    strides: tuple[Count, ...] = (5, 4, 2, 2, 2)
    context: int = Field(256, gt=0)
    steps: int = Field(12, gt=0, description="latents")
    needs = {"views": frozenset({"sequence"})}
    gives = frozenset({"queries at positions"})
    source = "CPC, arXiv:1807.03748, section 3.1"
    example = {"width": 8, "kernels": (8, 4), "strides": (4, 2), "context": 8, "steps": 3}

    @model_validator(mode="after")
    def _one_stride_a_kernel(self) -> CPCSequence:
        if len(self.kernels) != len(self.strides) or not self.kernels:
            raise ValueError(f"one stride for each kernel: {len(self.kernels)} kernels and {len(self.strides)} strides")
        return self

    def build(self) -> Encoder:
        from contralex_cpc.encoders import SequenceEncoder

        return SequenceEncoder(self)


class Patches(Spec):
    """One view: a grid of overlapping patches of a random crop of the image.

    The image's short side becomes ``resize`` pixels, of which a random square of ``crop`` is kept, mirrored half
    the time and turned grey; ``patch``x``patch`` pixels are taken every ``stride``, and of each a random
    ``patch_crop`` square is kept and padded back to ``patch``.
    """

    kind: Literal["patches"] = "patches"
    resize: int = Field(300, gt=0, description="pixels")
    crop: int = Field(256, gt=0, description="pixels")
    patch: int = Field(64, gt=0, description="pixels")
    stride: int = Field(32, gt=0, description="pixels")
    patch_crop: int = Field(60, gt=0, description="pixels")
    flip: bool = True
    gray: bool = True
    needs = {"data": frozenset({"images"})}
    gives = frozenset({"patches"})
    source = "CPC, arXiv:1807.03748, section 3.2"
    example = {"resize": 20, "crop": 16, "patch": 8, "stride": 4, "patch_crop": 6}

    @model_validator(mode="after")
    def _nested(self) -> Patches:
        if not self.patch_crop <= self.patch <= self.crop <= self.resize:
            raise ValueError("patch_crop, patch, crop and resize each fit into the next")
        if (self.crop - self.patch) % self.stride:
            raise ValueError(
                f"stride {self.stride} does not fill a crop of {self.crop} with patches of {self.patch} exactly"
            )
        return self

    def key_flags(self) -> list[bool]:
        return [True]

    def build(self) -> Views:
        from contralex_cpc.views import PatchViews

        return PatchViews(self)


class Window(Spec):
    """One view: a random window of ``length`` samples of a sequence (channels, time)."""

    kind: Literal["window"] = "window"
    length: int = Field(20480, gt=0, description="samples")
    needs = {"data": frozenset({"sequence"})}
    gives = frozenset({"sequence"})
    source = "CPC, arXiv:1807.03748, section 3.1"
    example = {"length": 256}

    def key_flags(self) -> list[bool]:
        return [True]

    def build(self) -> Views:
        from contralex_cpc.views import WindowViews

        return WindowViews(self)


class SequenceFolder(Spec):
    """A folder of sequences: ``.wav`` files (PCM), or ``.npy`` arrays of shape (time,) or (channels, time).

    Folders directly below ``root`` are classes where all files lie in such folders; ``train`` and ``test`` folders
    are splits, else ``held_out`` of the labelled files are kept for evaluation.
    """

    kind: Literal["sequence_folder"] = "sequence_folder"
    root: str
    held_out: float = Field(0.2, ge=0, lt=1)
    gives = frozenset({"sequence", "labels"})
    source = "any folder of recordings"
    example = {"root": "."}

    @field_validator("root")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value:
            raise ValueError("a folder is needed")
        return value

    def build(self) -> Source:
        from contralex_cpc.sequences import SequenceSource

        return SequenceSource(self)

    @classmethod
    def tiny(cls, folder: str) -> SequenceFolder:
        from contralex_cpc.sequences import write_tiny

        write_tiny(folder)
        return cls(root=folder)
