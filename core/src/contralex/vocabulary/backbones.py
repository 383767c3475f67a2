"""Specs of the core's backbones: what turns an image into features, without a classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from contralex.spec.base import Spec

if TYPE_CHECKING:
    from torch import nn

Count = Annotated[int, Field(gt=0, le=65_536)]
Channels = Annotated[int, Field(gt=0, le=4096)]


class TorchvisionBackbone(Spec):
    """A torchvision classification model by name, without its classifier.

    ``stem: small`` is the usual change of ResNets for 32x32 images: a 3x3 first convolution of stride 1 and no
    max-pooling. ``zero_init_residual`` starts each residual branch at zero (ResNets). ``width``: every layer has so
    many times its channels (ResNets). ``channels``: of the image; other than 3 makes the first convolution anew.
    """

    kind: Literal["torchvision"] = "torchvision"
    name: str = "resnet50"
    stem: Literal["imagenet", "small"] = "imagenet"
    zero_init_residual: bool = False
    width: float = Field(1.0, gt=0, le=16)
    channels: Channels = 3
    source = "torchvision.models; He et al., 2016, arXiv:1512.03385"
    example = {"name": "resnet18", "stem": "small"}

    def build(self) -> tuple[nn.Module, int]:
        from contralex.parts.backbones import torchvision

        return torchvision(self)


class TimmBackbone(Spec):
    """A timm model by name, without its classifier (``pip install 'contralex[timm]'``). ``channels``: of the image."""

    kind: Literal["timm"] = "timm"
    name: str
    pretrained: bool = False
    drop_path: float = Field(0.0, ge=0, lt=1)
    channels: Channels = 3
    source = "the package timm"
    example = {"name": "resnet10t"}

    def build(self) -> tuple[nn.Module, int]:
        from contralex.parts.backbones import timm_model

        return timm_model(self)


class ConvBackbone(Spec):
    """A plain stack of 3x3 convolutions with BatchNorm and ReLU, then the mean over places; for small images.

    ``widths``: channels of each layer; ``strides``: of each layer.
    """

    kind: Literal["conv"] = "conv"
    widths: tuple[Count, ...] = (32, 64, 64, 128, 256)
    strides: tuple[Count, ...] = (1, 2, 1, 2, 2)
    channels: int = Field(3, gt=0, le=4096, description="of the image")
    source = "contralex: a small network for small images"
    example = {"widths": (6, 8), "strides": (2, 2)}

    def build(self) -> tuple[nn.Module, int]:
        from contralex.parts.backbones import conv

        return conv(self)


class ViT(Spec):
    """A Vision Transformer (timm's, ``pip install 'contralex[timm]'``), by its sizes.

    ``image_size``: in pixels, a side; ``any_size``: images of other sizes are taken too, with positions interpolated as
    DINO's code does (multi-crop). ``patch``: in pixels, a side. ``heads`` of attention in each of the ``depth`` blocks;
    ``mlp_ratio``: the hidden layer of a block's MLP, in widths. ``drop_path``: the rate at which the last block is left
    out in training; it rises from 0 at the first. ``positions``: ``learned``, or fixed sines and cosines of two
    dimensions.
    ``frozen_patches``: the patches' embedding stays as it began, at random (MoCo v3). ``init``: of weights,
    ``trunc_normal`` (standard deviation .02) or ``xavier`` (uniform, with q, k and v as three layers: MoCo v3).
    ``pool``: features are the class ``token``, or the ``mean`` of the patches. ``channels``: of the image.
    """

    kind: Literal["vit"] = "vit"
    image_size: int = Field(224, gt=0, le=4096, description="pixels")
    patch: int = Field(16, gt=0, le=1024, description="pixels")
    width: int = Field(384, gt=0, le=65536)
    depth: int = Field(12, gt=0, le=1024)
    heads: int = Field(6, gt=0, le=1024)
    mlp_ratio: float = Field(4.0, gt=0, le=64)
    drop_path: float = Field(0.0, ge=0, lt=1)
    any_size: bool = False
    positions: Literal["learned", "sincos"] = "learned"
    frozen_patches: bool = False
    init: Literal["trunc_normal", "xavier"] = "trunc_normal"
    pool: Literal["token", "mean"] = "token"
    channels: Channels = 3
    source = "Dosovitskiy et al., 2021, arXiv:2010.11929; MoCo v3, arXiv:2104.02057, sections 4.1 and 4.2"
    example = {"image_size": 16, "patch": 8, "width": 8, "depth": 1, "heads": 2, "any_size": True}

    def build(self) -> tuple[nn.Module, int]:
        from contralex.parts.backbones import vit

        return vit(self)
