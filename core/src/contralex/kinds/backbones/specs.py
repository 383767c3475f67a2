"""Specs of the core's backbones: what turns an image into features, without a classifier."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from contralex.plugins.architecture import Architecture, Library, NewLayer
from contralex.plugins.spec import Spec

Count = Annotated[int, Field(gt=0, le=65_536)]
Channels = Annotated[int, Field(gt=0, le=4096)]

# ResNets that torchvision and timm have under one name, with tensors of the same names.
_RESNETS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
)
# Blocks of each stage of the plain ones, and whether they are bottlenecks.
_PLAIN = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}

# timm's ViTs whose arguments say all that a Vision Transformer by its sizes is; others are made of one by arguments.
_VITS = (
    *("vit_tiny_patch16_224", "vit_small_patch32_224", "vit_small_patch16_224", "vit_small_patch8_224"),
    *("vit_base_patch32_224", "vit_base_patch16_224", "vit_base_patch8_224", "vit_large_patch32_224"),
    *("vit_large_patch16_224", "vit_large_patch14_224", "vit_huge_patch14_224"),
)

# The beginnings of names of the models whose places can be read, in torchvision and in timm.
_TORCHVISION_PLACES = re.compile(r"(wide_)?resnet|resnext|regnet|convnext|efficientnet|swin_|vit_")
_TIMM_PLACES = re.compile(
    r"(vit_(tiny|little|small|medium|base|large|huge|giant|gigantic)_patch|deit3?_(tiny|small|medium|base|large|huge)_patch"
    r"|(se|eca|wide_)?resnet\d|resnext\d|convnext|regnet|(tf_)?efficientnet|swin_(tiny|small|base|large|s3)_)"
)
_PLACES = frozenset({"places"})


def swiglu_width(width: int, mlp_ratio: float) -> int:
    """The dimensions of a SwiGLU's hidden layer: two thirds of an MLP's, up to a multiple of 8 (DINOv2, code:
    layers/swiglu_ffn.py)."""
    return (int(int(width * mlp_ratio) * 2 / 3) + 7) // 8 * 8


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
    pretrained: bool = False
    """Whether training starts from torchvision's published weights, which are downloaded once (only with ``stem``,
    ``width`` and ``channels`` as they are)."""
    source = "torchvision.models; He et al., 2016, arXiv:1512.03385"
    added = frozenset({"pretrained"})
    gives = _PLACES
    example = {"name": "resnet18", "stem": "small"}

    def offers(self) -> frozenset[str]:
        return self.gives if _TORCHVISION_PLACES.match(self.name) else frozenset()

    def image_shape(self) -> tuple[int, int | None]:
        return self.channels, None

    def without_published_weights(self) -> Spec:
        return self.model_copy(update={"pretrained": False}) if self.pretrained else self

    def published_pixels(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        if not self.pretrained:
            return None
        from torchvision.models import get_model_weights

        weights: Any = get_model_weights(self.name)
        seen = weights.DEFAULT.transforms()
        return tuple(seen.mean), tuple(seen.std)

    def architecture(self, library: Library) -> Architecture | str:
        if library == "torchvision":
            return self._of_torchvision()
        if self.stem == "small":
            return f"stem is small, and the ResNets of {library} begin with a convolution of 7x7"
        if library == "transformers":
            return self._of_transformers()
        if self.name not in _RESNETS:
            return f"{self.name} has other names there"
        if self.width != 1:
            return f"width is {self.width:g}"
        return Architecture(self.name, {} if self.channels == 3 else {"in_chans": self.channels})

    def _of_torchvision(self) -> Architecture | str:
        if self.width != 1:
            return f"width is {self.width:g}"
        if self.stem == "imagenet" and self.channels == 3:
            return Architecture(self.name)
        if self.name not in _RESNETS:
            return f"channels are {self.channels}"
        size = (self.channels, 64, 3) if self.stem == "small" else (self.channels, 64, 7, 2)
        padding = 1 if self.stem == "small" else 3
        layers = {"conv1": NewLayer("Conv2d", size, {"padding": padding, "bias": False})}
        if self.stem == "small":
            layers["maxpool"] = NewLayer("Identity")
        return Architecture(self.name, layers=layers)

    def _of_transformers(self) -> Architecture | str:
        if self.name not in _PLAIN:
            return f"{self.name} is no plain ResNet"
        blocks, has_bottlenecks = _PLAIN[self.name]
        widths = [round(64 * 2**stage * self.width) for stage in range(4)]
        return Architecture(
            "resnet",
            {
                "num_channels": self.channels,
                "embedding_size": widths[0],
                "hidden_sizes": [width * (4 if has_bottlenecks else 1) for width in widths],
                "depths": list(blocks),
                "layer_type": "bottleneck" if has_bottlenecks else "basic",
                "hidden_act": "relu",
                "downsample_in_first_stage": False,
            },
        )


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
    gives = _PLACES
    source = "the package timm"
    example = {"name": "resnet10t"}

    def offers(self) -> frozenset[str]:
        return self.gives if _TIMM_PLACES.match(self.name) else frozenset()

    def image_shape(self) -> tuple[int, int | None]:
        return self.channels, None

    def without_published_weights(self) -> Spec:
        return self.model_copy(update={"pretrained": False}) if self.pretrained else self

    def published_pixels(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        if not self.pretrained or self.channels != 3:
            return None
        from timm.models import get_pretrained_cfg

        seen = get_pretrained_cfg(self.name)
        return None if seen is None else (tuple(seen.mean), tuple(seen.std))

    def architecture(self, library: Library) -> Architecture | str:
        if library == "timm":
            arguments = {} if self.channels == 3 else {"in_chans": self.channels}
            return Architecture(self.name, arguments, any_size=True)
        if self.name not in _RESNETS:
            return f"timm's {self.name} is not one of {library}"
        return TorchvisionBackboneSpec(name=self.name, channels=self.channels).architecture(library)


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
    gives = _PLACES
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
    """The rate at which the last block is left out in training; it rises from 0 at the first (``drop_path_rule``)."""
    any_size: bool = False
    """Whether it takes images of other sizes too, with positions interpolated as DINO's code does (multi-crop)."""
    positions: Literal["learned", "sincos"] = "learned"
    """Embeddings of the positions: ``learned``, or fixed sines and cosines of two dimensions (``sincos``)."""
    frozen_patches: bool = False
    """Whether the patches' embedding keeps its random first weights (MoCo v3)."""
    init: Literal["trunc_normal", "xavier", "dinov2"] = "trunc_normal"
    """How weights are initialised: ``trunc_normal`` (standard deviation .02), ``xavier`` (uniform, with q, k and v
    as three layers: MoCo v3), or ``dinov2`` (``trunc_normal``, but 1e-6 of the class token)."""
    pool: Literal["token", "mean"] = "token"
    """Features are the class ``token``, or the ``mean`` of the patches."""
    channels: Channels = 3
    """Channels of the image."""
    layer_scale: float | None = Field(None, gt=0, le=10)
    """The first value of what multiplies the output of each attention and of each MLP, learnt; null: nothing does."""
    drop_path_rule: Literal["linear", "uniform"] = "linear"
    """The rate of each block: ``linear`` rises from 0 at the first block to ``drop_path`` at the last; ``uniform`` is
    the same in all, and a block computes a random part of the batch alone (DINOv2)."""
    feed_forward: Literal["mlp", "swiglu"] = "mlp"
    """The layers after attention: an ``mlp``, or ``swiglu``, silu(x₁)·x₂ of two thirds of its hidden layer."""
    registers: int = Field(0, ge=0, le=1024)
    """Learnt tokens without a position, which no feature is read from (arXiv:2309.16588)."""
    mask_token: bool = False
    """Whether there is a learnt token for patches that a view hides."""
    resampling: Literal["offset", "antialias"] = "offset"
    """How positions are interpolated with ``any_size``: as DINO's code does (``offset``), or to the exact size with
    antialiasing, as DINOv2's networks with registers do (``antialias``)."""
    source = (
        "Dosovitskiy et al., 2021, arXiv:2010.11929; MoCo v3, arXiv:2104.02057, sections 4.1 and 4.2; DINOv2, "
        "arXiv:2304.07193; registers: arXiv:2309.16588"
    )
    gives = _PLACES | {"a mask token"}
    added = frozenset({"layer_scale", "drop_path_rule", "feed_forward", "registers", "mask_token", "resampling"})

    def offers(self) -> frozenset[str]:
        return self.gives if self.mask_token else self.gives - {"a mask token"}

    example = {"image_size": 16, "patch": 8, "width": 8, "depth": 1, "heads": 2, "any_size": True}

    def architecture(self, library: Library) -> Architecture | str:
        if library != "timm":
            return ""
        if self.registers:
            return "its registers come after the positions, which timm adds to them"
        sizes = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}
        name = f"vit_{sizes.get(self.width, '')}_patch{self.patch}_224"
        name = name if name in _VITS else "vit_base_patch16_224"
        arguments = {
            "img_size": self.image_size,
            "patch_size": self.patch,
            "embed_dim": self.width,
            "depth": self.depth,
            "num_heads": self.heads,
            "mlp_ratio": self.mlp_ratio,
            **({} if self.layer_scale is None else {"init_values": self.layer_scale}),
            "global_pool": "token" if self.pool == "token" else "avg",
            "fc_norm": False,
            **({"in_chans": self.channels} if self.channels != 3 else {}),
            **({"dynamic_img_size": True} if self.any_size else {}),
        }
        if self.feed_forward == "swiglu":
            name = "vit_giant_patch14_dinov2"  # it has such layers, whose width timm counts in widths of tokens
            arguments["mlp_ratio"] = (2 * swiglu_width(self.width, self.mlp_ratio) + 0.5) / self.width
        note = (
            f"For images of another size than {self.image_size} pixels, timm interpolates positions in its own way, "
            "which differs a little from DINO's."
            if self.any_size
            else ""
        )
        left_out = ("mask_token",) if self.mask_token else ()
        return Architecture(name, arguments, left_out=left_out, note=note)

    def image_shape(self) -> tuple[int, int | None]:
        return self.channels, None if self.any_size else self.image_size
