"""A Vision Transformer of patches alone, made of timm's."""

from __future__ import annotations

import torch
from timm.models import vision_transformer as timm
from torch import Tensor, nn

from contralex.plugin import Backbone, ContralexError, PlacesBackbone, sincos_positions

_DRAWN_STD = 0.02  # of the weights of linear layers, as timm draws them


def patch_vit_backbone(
    image_size: int = 224,
    patch: int = 16,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    mlp_ratio: float = 4.0,
    channels: int = 3,
    init_std: float = 0.02,
) -> Backbone:
    """A Vision Transformer without a class token, and ``width``, the dimensions of its features (I-JEPA,
    arXiv:2301.08243, appendix A.1; code: vision_transformer.py).

    Sizes as of :func:`contralex.plugin.vit_backbone`. All weights are drawn from a normal distribution of standard
    deviation ``init_std``; biases are zero.
    """
    vit = PatchTransformer(
        img_size=image_size,
        patch_size=patch,
        in_chans=channels,
        num_classes=0,
        class_token=False,
        global_pool="avg",
        fc_norm=False,  # the norm comes before the mean
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=mlp_ratio,
    )
    nn.init.trunc_normal_(vit.patch_embed.proj.weight, std=_DRAWN_STD)
    nn.init.zeros_(vit.patch_embed.proj.bias)
    with torch.no_grad():
        for module in vit.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.weight.mul_(init_std / _DRAWN_STD)
    fixed = sincos_positions(image_size // patch, width)[1:]
    vit.pos_embed = nn.Parameter(fixed.unsqueeze(0), requires_grad=False)
    return Backbone(vit, width)


class PatchTransformer(timm.VisionTransformer, PlacesBackbone):
    """(B, C, H, W) to (B, F). ``pos_embed`` (1, P, F) are fixed."""

    pos_embed: nn.Parameter

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        return self.encode_tokens(x).mean(dim=1)

    def encode_tokens(self, images: Tensor, places: Tensor | None = None) -> Tensor:
        """The tokens of the patches (B, P, F) after the last norm, or of those at ``places`` (B, C) alone: the others
        are left out after positions are added, and no token sees them."""
        self._check_images(images)
        tokens = self.patch_embed(images) + self.pos_embed
        if places is not None:
            tokens = tokens.gather(1, places.unsqueeze(2).expand(-1, -1, tokens.shape[2]))
        encoded: Tensor = self.norm(self.blocks(tokens))
        return encoded

    def encode_places(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if mask is not None:
            raise ContralexError(
                "method.encoder.backbone: patch_vit has no token for patches that are hidden; use kind vit with "
                "mask_token: true."
            )
        tokens = self.encode_tokens(images)
        return tokens.mean(dim=1), tokens

    def grid(self, images: Tensor) -> tuple[int, int]:
        rows, columns = self.patch_embed.patch_size
        return images.shape[-2] // rows, images.shape[-1] // columns

    def _check_images(self, images: Tensor) -> None:
        height, width = images.shape[-2:]
        if (height, width) != tuple(self.patch_embed.img_size):
            raise ContralexError(
                f"method.encoder.backbone.image_size is {self.patch_embed.img_size[0]}, and an image of "
                f"{width}x{height} pixels arrived; make the two equal."
            )
