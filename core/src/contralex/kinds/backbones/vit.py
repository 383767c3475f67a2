"""Vision Transformers, made of timm's, with what self-supervised methods change of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from timm.models import vision_transformer as timm
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.errors import ContralexError, remedy

if TYPE_CHECKING:
    from contralex.kinds.backbones import specs


class VisionTransformer(timm.VisionTransformer):
    """timm's, which says what is wrong with an image's size, and starts as the spec says."""

    def __init__(self, spec: specs.ViT) -> None:
        _check(spec)
        super().__init__(
            img_size=spec.image_size,
            patch_size=spec.patch,
            in_chans=spec.channels,
            num_classes=0,
            global_pool="token" if spec.pool == "token" else "avg",
            fc_norm=False,  # the norm comes before pooling, and is of tokens, in either way
            embed_dim=spec.width,
            depth=spec.depth,
            num_heads=spec.heads,
            mlp_ratio=spec.mlp_ratio,
            drop_path_rate=spec.drop_path,
            dynamic_img_size=spec.any_size,
        )
        if spec.init == "xavier":
            self._start_xavier()
        else:
            assert self.cls_token is not None
            nn.init.trunc_normal_(self.cls_token, std=0.02)  # timm's other weights are so already
        if spec.positions == "sincos":
            fixed = sincos(spec.image_size // spec.patch, spec.width)
            self.pos_embed = nn.Parameter(fixed.unsqueeze(0), requires_grad=False)
        if spec.frozen_patches:
            for parameter in self.patch_embed.parameters():
                parameter.requires_grad_(False)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        height, width = x.shape[-2:]
        made_for = self.patch_embed.img_size
        if not self.dynamic_img_size and (height, width) != made_for:
            raise ContralexError(
                f"method.encoder.backbone.image_size is {made_for[0]}, and an image of {width}x{height} pixels "
                "arrived; make the two equal, or let it take any size:"
                + remedy("--set", "method.encoder.backbone.any_size=true")
            )
        patch = self.patch_embed.patch_size[0]
        if height % patch or width % patch:
            raise ContralexError(
                f"method.encoder.backbone.patch is {patch}, which does not divide an image of {width}x{height} pixels; "
                "change the crop's size."
            )
        features: Tensor = super().forward(x, *args, **kwargs)
        return features

    def _pos_embed(self, x: Tensor) -> Tensor:
        if not self.dynamic_img_size:
            tokens: Tensor = super()._pos_embed(x)
            return tokens
        assert self.cls_token is not None and self.pos_embed is not None
        positions = resampled(self.pos_embed, self.patch_embed.grid_size, (x.shape[1], x.shape[2]))
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(1, 2)], dim=1)
        return self.pos_drop(tokens + positions)  # type: ignore[no-any-return]

    def _start_xavier(self) -> None:
        """Xavier-uniform weights, with q, k and v as three layers (MoCo v3, section 4.1; code: vits.py)."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                made = 3 if name.endswith("qkv") else 1
                _uniform(module, fan_in=module.in_features, fan_out=module.out_features // made)
        patches = self.patch_embed.proj
        _uniform(patches, fan_in=patches.in_channels * math.prod(patches.kernel_size), fan_out=patches.out_channels)


def sincos(grid: int, width: int) -> Tensor:
    """(1 + grid², width) fixed positions: zeros for the class token, then sines and cosines of the column and of the
    row, at width/4 frequencies each, from 1 down to 1/10000 (MoCo v3, section 4.1; Vaswani et al., 2017)."""
    frequency = 10000.0 ** -(torch.arange(width // 4) / (width // 4))
    row, column = torch.meshgrid(torch.arange(grid).float(), torch.arange(grid).float(), indexing="ij")
    angles = [place.flatten().unsqueeze(1) * frequency for place in (column, row)]  # (grid², width/4) each
    places = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
    return torch.cat([torch.zeros(1, width), places])


def resampled(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """(1, 1 + rows·columns, D) positions for a ``new`` grid, from those of the ``old`` one (DINO; code:
    vision_transformer.py, ``interpolate_pos_encoding``).

    Bicubic and without antialiasing. The code asks for .1 of a row more than there are, against rounding; since torch
    1.6 that is also how far apart the samples are: old / (new + .1).
    """
    if new == old:
        return positions
    grid = positions[:, 1:].unflatten(1, old).permute(0, 3, 1, 2)
    ratio = ((new[0] + 0.1) / old[0], (new[1] + 0.1) / old[1])
    sampled = F.interpolate(grid, scale_factor=ratio, mode="bicubic")
    return torch.cat([positions[:, :1], sampled.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _uniform(module: nn.Linear | nn.Conv2d, *, fan_in: int, fan_out: int) -> None:
    limit = math.sqrt(6 / (fan_in + fan_out))
    nn.init.uniform_(module.weight, -limit, limit)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _check(spec: specs.ViT) -> None:
    where = "method.encoder.backbone"
    if spec.image_size % spec.patch:
        raise ContralexError(
            f"{where}.image_size is {spec.image_size}, and patch, {spec.patch}, does not divide it; change one."
        )
    if spec.width % spec.heads:
        raise ContralexError(f"{where}.width is {spec.width}, and heads, {spec.heads}, does not divide it; change one.")
    if spec.positions == "sincos" and spec.width % 4:
        raise ContralexError(f"{where}.width is {spec.width}, and positions sincos need a multiple of 4; change one.")
