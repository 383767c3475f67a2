"""Backbones of torchvision and timm by name, and a small stack of convolutions.

Each function returns the module, from images (B, C, H, W) to features (B, F), and F. Its messages name the recipe's
settings, which are its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn

from contralex.compat import make_resnet_stage
from contralex.errors import ContralexError, did_you_mean, find_similar, remedy
from contralex.kinds.backbones.places import count_places, give_places, list_places, refuse_mask
from contralex.lookup.slots import Backbone, PlacesBackbone


def torchvision_backbone(
    name: str = "resnet50",
    stem: Literal["imagenet", "small"] = "imagenet",
    zero_init_residual: bool = False,
    width: float = 1.0,
    channels: int = 3,
    pretrained: bool = False,
) -> Backbone:
    """A torchvision classification model without its classifier (torchvision.models; ResNets: arXiv:1512.03385).

    ``stem``: ``small`` begins a ResNet with a 3x3 convolution of stride 1 and no pooling, for images of 32 or 64
    pixels. ``zero_init_residual``: the last BatchNorm of each residual block starts at zero. ``width`` multiplies the
    channels of every layer of a ResNet. ``channels``: of the images. ``pretrained``: it begins with torchvision's
    published weights, its best of that name, which are downloaded once; for the network as torchvision has it alone.
    """
    from torchvision import models

    from contralex.kinds.backbones.torchvision_places import FAMILIES

    names = models.list_models(module=models)
    if name not in names:
        raise ContralexError(f"method.encoder.backbone.name: torchvision has no model {name!r}{_suggest(name, names)}.")
    options: dict[str, Any] = {}
    if zero_init_residual:
        if not name.startswith(("resnet", "resnext", "wide_resnet")):
            raise ContralexError(
                f"method.encoder.backbone.zero_init_residual is for ResNets, and {name} is none: set it to false."
            )
        options["zero_init_residual"] = True
    if pretrained and (stem != "imagenet" or width != 1 or channels != 3):
        raise ContralexError(
            f"method.encoder.backbone.pretrained: the published weights are of {name} as torchvision has it; leave "
            "stem, width and channels at imagenet, 1 and 3, or begin at random:"
            + remedy("--set", "method.encoder.backbone.pretrained=false")
        )
    with downloading("torchvision", name):
        model = models.get_model(name, weights="DEFAULT" if pretrained else None, **options)
    if width != 1:
        _widen(model, name, width, zero_init_residual)
    if channels != 3:
        _take_channels(model, name, channels)
    if stem == "small":
        if not isinstance(model, models.ResNet):
            raise ContralexError(
                f"method.encoder.backbone.stem: small is for ResNets, and {name} is none: set it to imagenet."
            )
        model.conv1 = nn.Conv2d(channels, model.conv1.out_channels, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    width_of_features = _remove_classifier(model, name)
    return Backbone(give_places(model, FAMILIES), width_of_features)


def _widen(model: nn.Module, name: str, width: float, zero_init_residual: bool) -> None:
    """Make every layer of a ResNet anew with ``width`` times its channels, initialised as torchvision does.

    torchvision's own ``width_per_group`` widens the middle of each bottleneck alone.
    """
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    if not isinstance(model, ResNet):
        raise ContralexError(
            f"method.encoder.backbone.width is for ResNets, and {name} is none: set it to 1, "
            "or choose a model of another size."
        )
    if (model.groups, model.base_width) != (1, 64):
        raise ContralexError(
            f"method.encoder.backbone.width is for plain ResNets, and {name} has a width of its own: set it to 1, "
            "or name a resnet."
        )
    model.inplanes = round(64 * width)
    model.conv1 = nn.Conv2d(3, model.inplanes, 7, stride=2, padding=3, bias=False)
    model.bn1 = nn.BatchNorm2d(model.inplanes)
    for stage, stride in enumerate((1, 2, 2, 2)):
        blocks: Any = getattr(model, f"layer{stage + 1}")
        planes = round(64 * 2**stage * width)
        setattr(model, f"layer{stage + 1}", make_resnet_stage(model, type(blocks[0]), planes, len(blocks), stride))
    model.fc = nn.Linear(model.inplanes, 1)  # _remove_classifier takes it off again
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif zero_init_residual and isinstance(module, Bottleneck | BasicBlock):
            nn.init.zeros_((module.bn3 if isinstance(module, Bottleneck) else module.bn2).weight)


def _take_channels(model: nn.Module, model_name: str, channels: int) -> None:
    """Make the first convolution anew, for images of another number of channels."""
    name, old = next(((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)), ("", None))
    if old is None or old.in_channels != 3 or old.groups != 1:
        raise ContralexError(
            f"method.encoder.backbone.channels: {model_name} does not begin with a convolution of 3 channels; "
            "set it to 3, or choose another model."
        )
    has_bias = old.bias is not None
    new = nn.Conv2d(channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=has_bias)  # type: ignore[arg-type]
    if not has_bias:  # as torchvision does where BatchNorm follows
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, new)


def _remove_classifier(model: nn.Module, name: str) -> int:
    """Replace torchvision's last linear layer, whatever the family calls it, and return its input's width."""
    path, width = find_classifier(model, name)
    parent, _, last = path.rpartition(".")
    setattr(model.get_submodule(parent), last, nn.Identity())
    return width


def find_classifier(model: nn.Module, name: str) -> tuple[str, int]:
    """The path of torchvision's last linear layer, and its input's width. ``name``: of the model, for a message."""
    for attribute in ("fc", "heads", "head", "classifier"):
        head = getattr(model, attribute, None)
        if isinstance(head, nn.Linear):
            return attribute, head.in_features
        if isinstance(head, nn.Sequential) and isinstance(head[-1], nn.Linear):
            last = [name for name, _ in head.named_children()][-1]
            return f"{attribute}.{last}", head[-1].in_features
    raise ContralexError(
        f"method.encoder.backbone.name: {name} has no linear classifier to take off, so it cannot be a backbone; "
        "choose a classification model such as resnet50, convnext_tiny or vit_b_16."
    )


def timm_backbone(name: str, pretrained: bool = False, drop_path: float = 0.0, channels: int = 3) -> Backbone:
    """A timm model without its classifier (``pip install 'contralex[timm]'``), for images of any size where it can.

    ``pretrained``: it begins with timm's published weights. ``drop_path``: the probability of stochastic depth in the
    last block, less in those before. ``channels``: of the images.
    """
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    if channels != 3:
        options["in_chans"] = channels
    with downloading("timm", name):
        model, _ = make_timm_model(name, pretrained=pretrained, dynamic_img_size=True, **options)
    from contralex.kinds.backbones.timm_places import FAMILIES

    return Backbone(give_places(model, FAMILIES), int(model.num_features))


def make_timm_model(name: str, pretrained: bool = False, **arguments: Any) -> tuple[Any, dict[str, Any]]:
    """A timm model without its classifier, and the arguments that it took.

    ``dynamic_img_size``: images of any size, with positions interpolated; models of one size, or to which sizes are
    alike, do not take it, and are made without.
    """
    try:
        import timm
    except ImportError as error:
        raise ContralexError(
            "method.encoder.backbone: kind timm needs the package timm: pip install 'contralex[timm]'."
        ) from error
    if not timm.is_model(name):
        raise ContralexError(
            f"method.encoder.backbone.name: timm has no model {name!r}{_suggest(name, timm.list_models())}."
        )
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **arguments), arguments
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise
    fewer = {key: value for key, value in arguments.items() if key != "dynamic_img_size"}
    return timm.create_model(name, pretrained=pretrained, num_classes=0, **fewer), fewer


def conv_backbone(
    widths: Sequence[int] = (32, 64, 64, 128, 256), strides: Sequence[int] = (1, 2, 1, 2, 2), channels: int = 3
) -> Backbone:
    """3x3 convolutions with BatchNorm and ReLU, then a spatial mean: a small network for small images.

    ``widths``: channels of each layer, the last of which is F. ``strides``: of each layer. ``channels``: of the images.
    """
    if len(widths) != len(strides) or not widths:
        raise ContralexError(
            f"method.encoder.backbone: widths has {len(widths)} entries and strides {len(strides)}; "
            "give one of each for each layer."
        )
    layers: list[nn.Module] = []
    before = channels
    for width, stride in zip(widths, strides, strict=True):
        layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        before = width
    return Backbone(ConvStack(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), before)


class ConvStack(nn.Sequential, PlacesBackbone):
    """Layers of convolutions, a pooling and a flattening. Places are those of the last convolution."""

    def encode_places(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        refuse_mask(self, mask)
        *layers, pool, flatten = self.children()
        map_ = images
        for layer in layers:
            map_ = layer(map_)
        return flatten(pool(map_)), list_places(map_)

    def grid(self, images: Tensor) -> tuple[int, int]:
        convolutions = [layer for layer in self.children() if isinstance(layer, nn.Conv2d)]
        return count_places(images, math.prod(layer.stride[0] for layer in convolutions))


@contextmanager
def downloading(library: str, name: str) -> Iterator[None]:
    """What a library raises where it cannot load its published weights, as a sentence."""
    try:
        yield
    except ContralexError:
        raise
    except (OSError, RuntimeError) as error:  # no network, no room, another hash; timm's of a model without weights
        reason = " ".join(str(error).split())
        raise ContralexError(
            f"method.encoder.backbone.pretrained: {library} could not load its published weights of {name} "
            f"({reason:.200}). They are downloaded once, which needs a network, and kept (HF_HOME, TORCH_HOME); or "
            "begin at random:" + remedy("--set", "method.encoder.backbone.pretrained=false")
        ) from error


def _suggest(name: str, known: Sequence[str]) -> str:
    question = did_you_mean(find_similar(name, known, 3))
    return f" ({question})" if question else ""
