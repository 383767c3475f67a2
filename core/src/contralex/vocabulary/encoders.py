"""Specs of the core's encoders: a backbone by name, an MLP projector and predictor, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from contralex.spec.base import Spec

if TYPE_CHECKING:
    from contralex.parts.base import Encoder

Count = Annotated[int, Field(gt=0)]


class Layer(Spec):
    """A linear layer, then BatchNorm, then an activation.

    ``affine``: whether BatchNorm has a scale and a shift (``full``), only a scale (SimCLR's last layer), or
    neither (SimSiam's). ``init_std``: weights from N(0, std²), biases 0, in place of torch's default.
    """

    width: int = Field(gt=0)
    bias: bool = True
    norm: Literal["none", "batch"] = "none"
    affine: Literal["full", "scale", "none"] = "full"
    activation: Literal["none", "relu", "gelu"] = "none"
    init_std: float | None = Field(None, gt=0)


class TorchvisionBackbone(Spec):
    """A torchvision classification model by name, without its classifier.

    ``stem: small`` is the usual change of ResNets for 32x32 images: a 3x3 first convolution of stride 1 and no
    max-pooling. ``zero_init_residual`` starts each residual branch at zero (ResNets).
    """

    kind: Literal["torchvision"] = "torchvision"
    name: str = "resnet50"
    stem: Literal["imagenet", "small"] = "imagenet"
    zero_init_residual: bool = False


class TimmBackbone(Spec):
    """A timm model by name, without its classifier (``pip install 'contralex[timm]'``)."""

    kind: Literal["timm"] = "timm"
    name: str
    pretrained: bool = False
    drop_path: float = Field(0.0, ge=0, lt=1)


class ConvBackbone(Spec):
    """A plain stack of 3x3 convolutions with BatchNorm and ReLU, then the mean over places; for small images.

    ``widths``: channels of each layer; ``strides``: of each layer.
    """

    kind: Literal["conv"] = "conv"
    widths: tuple[Count, ...] = (32, 64, 64, 128, 256)
    strides: tuple[Count, ...] = (1, 2, 1, 2, 2)
    channels: int = Field(3, gt=0, description="of the image")


Backbone = Annotated[TorchvisionBackbone | TimmBackbone | ConvBackbone, Field(discriminator="kind")]


class Image(Spec):
    """A backbone, a projector, and perhaps a predictor on the query's side.

    ``batching``: whether the views of a sample go through the network ``together``, as one batch (SimCLR; crops
    of one size each in SwAV), or ``apart`` (BYOL, SimSiam): BatchNorm's statistics, and so the gradients, differ.
    ``normalize``: bring queries and keys to unit length.
    """

    kind: Literal["image"] = "image"
    backbone: Backbone
    projector: tuple[Layer, ...] = ()
    predictor: tuple[Layer, ...] = ()
    batching: Literal["together", "apart"] = "apart"
    normalize: bool = True
    needs = {"views": frozenset({"images"})}
    gives = frozenset({"one query a view", "unit length", "any length"})
    source = "MoCo, arXiv:1911.05722; SimCLR, arXiv:2002.05709; BYOL, arXiv:2006.07733, section 3.1"
    example = {
        "backbone": {"kind": "conv", "widths": (6, 8), "strides": (2, 2)},
        "projector": ({"width": 8, "activation": "relu"}, {"width": 8}),
    }

    def offers(self) -> frozenset[str]:
        return self.gives - {"any length" if self.normalize else "unit length"}

    def build(self) -> Encoder:
        from contralex.parts.encoders import ImageEncoder

        return ImageEncoder(self)
