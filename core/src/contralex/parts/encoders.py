"""Image encoders: a backbone without its classifier, a projector, a predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.errors import ContralexError
from contralex.parts.base import Encoder

if TYPE_CHECKING:
    from contralex.vocabulary import encoders as specs


class ImageEncoder(Encoder):
    """Backbone → projector, and on the query's side → predictor; outputs of unit length where the spec says."""

    def __init__(self, spec: specs.Image) -> None:
        super().__init__()
        self.backbone, width = backbone(spec.backbone)
        self.feature_dim = width
        self.projector, self.dim = mlp(width, spec.projector)
        self.predictor, asked = mlp(self.dim, spec.predictor)
        if asked != self.dim:
            raise ContralexError(
                f"method.encoder.predictor ends in {asked} numbers and the projector in {self.dim}; "
                "they must be equal, because the one is compared with the other."
            )
        self.together = spec.batching == "together"
        self.normalize = spec.normalize

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        if not self.together:
            return {view: self.projector(self.features(image)) for view, image in views.items()}
        features: list[Tensor] = []
        for group in _by_shape(views):  # crops of one size in one batch, as SwAV's multi-crop does
            features.extend(self.features(torch.cat(group)).split([len(image) for image in group]))
        embedded = self.projector(torch.cat(features)).split([len(image) for image in features])
        return dict(zip([view for view, _ in _ordered(views)], embedded, strict=True))

    def features(self, view: Tensor) -> Tensor:
        return self.backbone(view).flatten(1)  # type: ignore[no-any-return]

    def queries(self, embedded: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor | None]]:
        if self.together and len(self.predictor):
            predicted = self.predictor(torch.cat(list(embedded.values())))
            parts = predicted.split([len(vectors) for vectors in embedded.values()])
            return {view: (self._scaled(part), None) for view, part in zip(embedded, parts, strict=True)}
        return {view: (self._scaled(self.predictor(vectors)), None) for view, vectors in embedded.items()}

    def keys(self, embedded: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {view: (self._scaled(vectors), None) for view, vectors in embedded.items()}

    def _scaled(self, vectors: Tensor) -> Tensor:
        # In float32 even under autocast: in half precision the guard against a zero length is itself zero.
        return F.normalize(vectors.float(), dim=1) if self.normalize else vectors


def _ordered(views: Mapping[int, Tensor]) -> list[tuple[int, Tensor]]:
    shapes = list(dict.fromkeys(image.shape for image in views.values()))
    return sorted(views.items(), key=lambda item: shapes.index(item[1].shape))


def _by_shape(views: Mapping[int, Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.Size, list[Tensor]] = {}
    for _, image in _ordered(views):
        groups.setdefault(image.shape, []).append(image)
    return list(groups.values())


def mlp(width: int, layers: Sequence[specs.Layer]) -> tuple[nn.Sequential, int]:
    """The layers as a module, and the width that it ends in. No layers: the identity."""
    modules: list[nn.Module] = []
    for layer in layers:
        linear = nn.Linear(width, layer.width, bias=layer.bias)
        if layer.init_std is not None:
            nn.init.normal_(linear.weight, std=layer.init_std)
            if layer.bias:
                nn.init.zeros_(linear.bias)
        modules.append(linear)
        width = layer.width
        if layer.norm == "batch":
            modules.append(_batch_norm(width, layer.affine))
        if layer.activation != "none":
            modules.append({"relu": nn.ReLU, "gelu": nn.GELU}[layer.activation]())
    return nn.Sequential(*modules), width


def _batch_norm(width: int, affine: str) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(width, affine=affine != "none")
    if affine == "scale":
        norm.register_parameter("bias", None)
    return norm


def backbone(spec: specs.Backbone) -> tuple[nn.Module, int]:
    """A module from images (B, C, H, W) to features (B, F), and F."""
    if spec.kind == "torchvision":
        return _torchvision(spec)
    if spec.kind == "timm":
        return _timm(spec)
    return _conv(spec)


def _torchvision(spec: specs.TorchvisionBackbone) -> tuple[nn.Module, int]:
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
    if spec.stem == "small":
        if not hasattr(model, "maxpool") or not isinstance(getattr(model, "conv1", None), nn.Conv2d):
            raise ContralexError(
                f"method.encoder.backbone.stem: small is for ResNets, and {spec.name} is none: set it to imagenet."
            )
        model.conv1 = nn.Conv2d(3, model.conv1.out_channels, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    return model, _without_classifier(model, spec.name)


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


def _timm(spec: specs.TimmBackbone) -> tuple[nn.Module, int]:
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
    options = {"drop_path_rate": spec.drop_path} if spec.drop_path else {}
    model = timm.create_model(spec.name, pretrained=spec.pretrained, num_classes=0, **options)
    return model, int(model.num_features)


def _conv(spec: specs.ConvBackbone) -> tuple[nn.Module, int]:
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
