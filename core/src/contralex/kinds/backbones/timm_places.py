"""timm's networks that give their places, too, by the two halves of their ``forward``."""

from __future__ import annotations

import math
from typing import Any

from timm.models import convnext, efficientnet, regnet, resnet, swin_transformer, vision_transformer
from torch import Tensor, nn

from contralex.kinds.backbones.places import count_places, list_places, refuse_mask
from contralex.lookup.slots import PlacesBackbone


class VisionTransformer(vision_transformer.VisionTransformer, PlacesBackbone):
    """Places are the patches, after the last norm."""

    def encode_places(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        refuse_mask(self, mask)
        tokens = self.forward_features(images)
        return self.forward_head(tokens), tokens[:, self.num_prefix_tokens :]

    def grid(self, images: Tensor) -> tuple[int, int]:
        found: tuple[int, int] = self.patch_embed.dynamic_feat_size((images.shape[-2], images.shape[-1]))
        return found


class SwinTransformer(swin_transformer.SwinTransformer, PlacesBackbone):
    """Places are the last stage's, after the norm."""

    def encode_places(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        refuse_mask(self, mask)
        map_ = self.forward_features(images)  # (B, rows, columns, F)
        return self.forward_head(map_), map_.flatten(1, 2)

    def grid(self, images: Tensor) -> tuple[int, int]:
        return math.ceil(images.shape[-2] // 4 / 8), math.ceil(images.shape[-1] // 4 / 8)


class ResNet(resnet.ResNet, PlacesBackbone):
    """Places are those of the last stage."""

    def encode_places(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _encode_map(self, images, mask)

    def grid(self, images: Tensor) -> tuple[int, int]:
        return count_places(images, 32)


class RegNet(regnet.RegNet, PlacesBackbone):
    """Places are those of the last stage."""

    def encode_places(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _encode_map(self, images, mask)

    def grid(self, images: Tensor) -> tuple[int, int]:
        return count_places(images, 32)


class EfficientNet(efficientnet.EfficientNet, PlacesBackbone):
    """Places are those of the last convolution."""

    def encode_places(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _encode_map(self, images, mask)

    def grid(self, images: Tensor) -> tuple[int, int]:
        return count_places(images, 32)


class ConvNeXt(convnext.ConvNeXt, PlacesBackbone):
    """Places are those of the last stage, before the norm, which comes after the pooling."""

    def encode_places(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _encode_map(self, images, mask)

    def grid(self, images: Tensor) -> tuple[int, int]:
        return images.shape[-2] // 32, images.shape[-1] // 32


FAMILIES: dict[type[nn.Module], type[nn.Module]] = {
    vision_transformer.VisionTransformer: VisionTransformer,
    swin_transformer.SwinTransformer: SwinTransformer,
    resnet.ResNet: ResNet,
    regnet.RegNet: RegNet,
    efficientnet.EfficientNet: EfficientNet,
    convnext.ConvNeXt: ConvNeXt,
}
"""By timm's class, which are those of most of its models."""


def _encode_map(model: Any, images: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    refuse_mask(model, mask)
    map_ = model.forward_features(images)  # (B, F, rows, columns)
    return model.forward_head(map_), list_places(map_)
