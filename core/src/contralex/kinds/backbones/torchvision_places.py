"""torchvision's networks that give their places, too: what their ``forward`` does, with the map before it is pooled."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchvision import models

from contralex.kinds.backbones.places import count_places, list_places, refuse_mask
from contralex.lookup.slots import PlacesBackbone


class ResNet(models.ResNet, PlacesBackbone):  # type: ignore[misc]
    """Places are those of the last stage."""

    def encode_places(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        refuse_mask(self, mask)
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1)), list_places(x)

    def grid(self, images: Tensor) -> tuple[int, int]:
        pooling = 1 if isinstance(self.maxpool, nn.Identity) else 2
        return count_places(images, 8 * self.conv1.stride[0] * pooling)


class RegNet(models.RegNet, PlacesBackbone):  # type: ignore[misc]
    """Places are those of the last stage."""

    def encode_places(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        refuse_mask(self, mask)
        x = self.trunk_output(self.stem(images))
        return self.fc(self.avgpool(x).flatten(1)), list_places(x)

    def grid(self, images: Tensor) -> tuple[int, int]:
        return count_places(images, 32)


class ConvNeXt(models.ConvNeXt, PlacesBackbone):  # type: ignore[misc]
    """Places are those of the last stage, before the norm, which comes after the pooling."""

    def encode_places(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        refuse_mask(self, mask)
        x = self.features(images)
        return self.classifier(self.avgpool(x)), list_places(x)

    def grid(self, images: Tensor) -> tuple[int, int]:
        return images.shape[-2] // 32, images.shape[-1] // 32


class EfficientNet(models.EfficientNet, PlacesBackbone):  # type: ignore[misc]
    """Places are those of the last convolution."""

    def encode_places(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        refuse_mask(self, mask)
        x = self.features(images)
        return self.classifier(self.avgpool(x).flatten(1)), list_places(x)

    def grid(self, images: Tensor) -> tuple[int, int]:
        return count_places(images, 32)


class SwinTransformer(models.SwinTransformer, PlacesBackbone):  # type: ignore[misc]
    """Places are the last stage's, after the norm."""

    def encode_places(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        refuse_mask(self, mask)
        x = self.norm(self.features(images))  # (B, rows, columns, F)
        return self.head(self.flatten(self.avgpool(self.permute(x)))), x.flatten(1, 2)

    def grid(self, images: Tensor) -> tuple[int, int]:
        return math.ceil(images.shape[-2] // 4 / 8), math.ceil(images.shape[-1] // 4 / 8)


class VisionTransformer(models.VisionTransformer, PlacesBackbone):  # type: ignore[misc]
    """Places are the patches, after the last norm."""

    def encode_places(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        refuse_mask(self, mask)
        patches = self._process_input(images)  # ``forward`` calls this name; there is no public one
        x = self.encoder(torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1))
        return self.heads(x[:, 0]), x[:, 1:]

    def grid(self, images: Tensor) -> tuple[int, int]:
        return images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size


FAMILIES: dict[type[nn.Module], type[nn.Module]] = {
    models.ResNet: ResNet,
    models.RegNet: RegNet,
    models.ConvNeXt: ConvNeXt,
    models.EfficientNet: EfficientNet,
    models.SwinTransformer: SwinTransformer,
    models.VisionTransformer: VisionTransformer,
}
"""By the class that ``torchvision.models`` makes. Of the others, some have no map that ends in features of an image."""
