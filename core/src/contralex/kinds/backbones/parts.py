"""The core's backbones: modules from images (B, C, H, W) to features (B, F), and F."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from contralex.errors import ContralexError

if TYPE_CHECKING:
    from contralex.kinds.backbones import specs


def torchvision(spec: specs.TorchvisionBackbone) -> tuple[nn.Module, int]:
    from torchvision import models

    names = models.list_models(module=models)
    if spec.name not in names:
        raise ContralexError(
            f"method.encoder.backbone.name: torchvision has no model {spec.name!r}{_close(spec.name, names)}."
        )
    options: dict[str, Any] = {}
    if spec.zero_init_residual:
        if not spec.name.startswith(("resnet", "resnext", "wide_resnet")):
            raise ContralexError(
                f"method.encoder.backbone.zero_init_residual is for ResNets, and {spec.name} is none: set it to false."
            )
        options["zero_init_residual"] = True
    model = models.get_model(spec.name, weights=None, **options)
    if spec.width != 1:
        _widen(model, spec)
    if spec.channels != 3:
        _take_channels(model, spec)
    if spec.stem == "small":
        if not hasattr(model, "maxpool") or not isinstance(getattr(model, "conv1", None), nn.Conv2d):
            raise ContralexError(
                f"method.encoder.backbone.stem: small is for ResNets, and {spec.name} is none: set it to imagenet."
            )
        model.conv1 = nn.Conv2d(spec.channels, model.conv1.out_channels, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    return model, _without_classifier(model, spec.name)


def _widen(model: nn.Module, spec: specs.TorchvisionBackbone) -> None:
    """Makes every layer of a ResNet anew with ``width`` times its channels, initialised as torchvision does.

    torchvision's own ``width_per_group`` widens the middle of each bottleneck alone.
    """
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    if not isinstance(model, ResNet):
        raise ContralexError(
            f"method.encoder.backbone.width is for ResNets, and {spec.name} is none: set it to 1, "
            "or choose a model of another size."
        )
    if (model.groups, model.base_width) != (1, 64):
        raise ContralexError(
            f"method.encoder.backbone.width is for plain ResNets, and {spec.name} has a width of its own: set it to 1, "
            "or name a resnet."
        )
    model.inplanes = round(64 * spec.width)
    model.conv1 = nn.Conv2d(3, model.inplanes, 7, stride=2, padding=3, bias=False)
    model.bn1 = nn.BatchNorm2d(model.inplanes)
    for stage, stride in enumerate((1, 2, 2, 2)):
        blocks: Any = getattr(model, f"layer{stage + 1}")
        planes = round(64 * 2**stage * spec.width)
        setattr(model, f"layer{stage + 1}", model._make_layer(type(blocks[0]), planes, len(blocks), stride))
    model.fc = nn.Linear(model.inplanes, 1)  # taken off again
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif spec.zero_init_residual and isinstance(module, Bottleneck | BasicBlock):
            nn.init.zeros_((module.bn3 if isinstance(module, Bottleneck) else module.bn2).weight)


def _take_channels(model: nn.Module, spec: specs.TorchvisionBackbone) -> None:
    """Makes the first convolution anew, for images of another number of channels."""
    name, old = next(((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)), ("", None))
    if old is None or old.in_channels != 3 or old.groups != 1:
        raise ContralexError(
            f"method.encoder.backbone.channels: {spec.name} does not begin with a convolution of 3 channels; "
            "set it to 3, or choose another model."
        )
    has_bias = old.bias is not None
    new = nn.Conv2d(spec.channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=has_bias)  # type: ignore[arg-type]
    if not has_bias:  # as torchvision does where BatchNorm follows
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, new)


def _without_classifier(model: nn.Module, name: str) -> int:
    """Replaces torchvision's last linear layer, whatever the family calls it, and returns its input's width."""
    for attribute in ("fc", "heads", "head", "classifier"):
        head = getattr(model, attribute, None)
        if isinstance(head, nn.Linear):
            setattr(model, attribute, nn.Identity())
            return head.in_features
        if isinstance(head, nn.Sequential) and isinstance(head[-1], nn.Linear):
            width = head[-1].in_features
            head[-1] = nn.Identity()
            return width
    raise ContralexError(
        f"method.encoder.backbone.name: {name} has no linear classifier to take off, so it cannot be a backbone; "
        "choose a classification model such as resnet50, convnext_tiny or vit_b_16."
    )


def timm_model(spec: specs.TimmBackbone) -> tuple[nn.Module, int]:
    try:
        import timm
    except ImportError as error:
        raise ContralexError(
            "method.encoder.backbone: kind timm needs the package timm: pip install 'contralex[timm]'."
        ) from error
    if not timm.is_model(spec.name):
        raise ContralexError(
            f"method.encoder.backbone.name: timm has no model {spec.name!r}{_close(spec.name, timm.list_models())}."
        )
    options: dict[str, Any] = {"drop_path_rate": spec.drop_path} if spec.drop_path else {}
    if spec.channels != 3:
        options["in_chans"] = spec.channels
    create = partial(timm.create_model, spec.name, pretrained=spec.pretrained, num_classes=0, **options)
    model: Any
    try:
        model = create(dynamic_img_size=True)  # images of any size, with positions interpolated
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise
        model = create()  # of one size, or a network to which sizes are alike
    return model, int(model.num_features)


def vit(spec: specs.ViT) -> tuple[nn.Module, int]:
    try:
        from contralex.kinds.backbones.vit import VisionTransformer
    except ImportError as error:
        raise ContralexError(
            "method.encoder.backbone: kind vit needs the package timm: pip install 'contralex[timm]'."
        ) from error
    return VisionTransformer(spec), spec.width


def conv(spec: specs.ConvBackbone) -> tuple[nn.Module, int]:
    if len(spec.widths) != len(spec.strides) or not spec.widths:
        raise ContralexError(
            f"method.encoder.backbone: widths has {len(spec.widths)} entries and strides {len(spec.strides)}; "
            "give one of each for each layer."
        )
    layers: list[nn.Module] = []
    before = spec.channels
    for width, stride in zip(spec.widths, spec.strides, strict=True):
        layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), before


def _close(name: str, known: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=3)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
