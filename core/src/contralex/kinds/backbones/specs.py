"""Specs of the core's backbones: what turns an image into features, without a classifier."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from contralex.plugins.spec import Spec

Count = Annotated[int, Field(gt=0, le=65_536)]
Channels = Annotated[int, Field(gt=0, le=4096)]


class TorchvisionBackboneSpec(Spec):
    """A torchvision classification model by name, without its classifier."""

    kind: Literal["torchvision"] = "torchvision"
    builds = ".parts:torchvision_backbone"
    name: str = "resnet50"
    """The name of a torchvision model, such as resnet50."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """The first layers of a ResNet: for large images (``imagenet``), or a 3x3 convolution of stride 1 without pooling
    (``small``)."""
    zero_init_residual: bool = False
    """Whether the last BatchNorm of each residual block starts at zero."""
    width: float = Field(1.0, gt=0, le=16)
    """Multiplies the channels of every layer (ResNets)."""
    channels: Channels = 3
    """Channels of the image; if they are not 3, the first convolution is replaced by a new one."""
    source = "torchvision.models; He et al., 2016, arXiv:1512.03385"
    example = {"name": "resnet18", "stem": "small"}

    def image_shape(self) -> tuple[int, int | None]:
        return self.channels, None


class TimmBackboneSpec(Spec):
    """A timm model by name, without its classifier (``pip install 'contralex[timm]'``).

    Where timm can, the model takes images of any size that its patches divide, with positions interpolated.
    """

    kind: Literal["timm"] = "timm"
    builds = ".parts:timm_backbone"
    name: str
    """The name of a timm model."""
    pretrained: bool = False
    """Whether training starts from timm's published weights."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """The probability of stochastic depth in the last block, less in those before."""
    channels: Channels = 3
    """Channels of the image."""
    source = "the package timm"
    example = {"name": "resnet10t"}

    def image_shape(self) -> tuple[int, int | None]:
        return self.channels, None


class ConvBackboneSpec(Spec):
    """A plain stack of 3x3 convolutions with BatchNorm and ReLU, then a spatial mean; for small images."""

    kind: Literal["conv"] = "conv"
    builds = ".parts:conv_backbone"
    widths: tuple[Count, ...] = (32, 64, 64, 128, 256)
    """Channels of each layer."""
    strides: tuple[Count, ...] = (1, 2, 1, 2, 2)
    """The stride of each layer."""
    channels: Channels = 3
    """Channels of the image."""
    source = "contralex: a small network for small images"
    example = {"widths": (6, 8), "strides": (2, 2)}

    def image_shape(self) -> tuple[int, int | None]:
        return self.channels, None


class ViTSpec(Spec):
    """A Vision Transformer (timm's, ``pip install 'contralex[timm]'``), by its sizes."""

    kind: Literal["vit"] = "vit"
    builds = ".vit:vit_backbone"
    image_size: int = Field(224, gt=0, le=4096)
    """Pixels of a side."""
    patch: int = Field(16, gt=0, le=1024)
    """Pixels of a patch's side."""
    width: int = Field(384, gt=0, le=65536)
    """Dimensions of a token."""
    depth: int = Field(12, gt=0, le=1024)
    """Number of blocks."""
    heads: int = Field(6, gt=0, le=1024)
    """Heads of attention in each block."""
    mlp_ratio: float = Field(4.0, gt=0, le=64)
    """The hidden layer of a block's MLP, in widths."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """The rate at which the last block is left out in training; it rises from 0 at the first."""
    any_size: bool = False
    """Whether it takes images of other sizes too, with positions interpolated as DINO's code does (multi-crop)."""
    positions: Literal["learned", "sincos"] = "learned"
    """Embeddings of the positions: ``learned``, or fixed sines and cosines of two dimensions (``sincos``)."""
    frozen_patches: bool = False
    """Whether the patches' embedding keeps its random first weights (MoCo v3)."""
    init: Literal["trunc_normal", "xavier"] = "trunc_normal"
    """How weights are initialised: ``trunc_normal`` (standard deviation .02), or ``xavier`` (uniform, with q, k and v
    as three layers: MoCo v3)."""
    pool: Literal["token", "mean"] = "token"
    """Features are the class ``token``, or the ``mean`` of the patches."""
    channels: Channels = 3
    """Channels of the image."""
    source = "Dosovitskiy et al., 2021, arXiv:2010.11929; MoCo v3, arXiv:2104.02057, sections 4.1 and 4.2"
    example = {"image_size": 16, "patch": 8, "width": 8, "depth": 1, "heads": 2, "any_size": True}

    def image_shape(self) -> tuple[int, int | None]:
        return self.channels, None if self.any_size else self.image_size
