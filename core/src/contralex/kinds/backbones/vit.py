"""Vision Transformers, made of timm's, with what self-supervised methods change of them."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.errors import ContralexError, remedy
from contralex.lookup.slots import Backbone

try:
    from timm.models import vision_transformer as timm
except ImportError as error:
    raise ContralexError(
        "method.encoder.backbone: kind vit needs the package timm: pip install 'contralex[timm]'."
    ) from error


def vit_backbone(
    image_size: int = 224,
    patch: int = 16,
    width: int = 384,
    depth: int = 12,
    heads: int = 6,
    mlp_ratio: float = 4.0,
    drop_path: float = 0.0,
    any_size: bool = False,
    positions: Literal["learned", "sincos"] = "learned",
    frozen_patches: bool = False,
    init: Literal["trunc_normal", "xavier"] = "trunc_normal",
    pool: Literal["token", "mean"] = "token",
    channels: int = 3,
) -> Backbone:
    """A Vision Transformer by its sizes (arXiv:2010.11929), and ``width``, the dimensions of its features.

    ``image_size`` and ``patch``: pixels of a side. ``depth``: blocks. ``heads``: of attention in each.
    ``mlp_ratio``: the hidden layer of a block's MLP, in widths. ``drop_path``: the rate at which the last block is left
    out in training. ``any_size``: it takes images of other sizes too, with positions interpolated as DINO's code does.
    ``positions``: learnt embeddings, or fixed sines and cosines. ``frozen_patches``: the patches' embedding stays as
    it began. ``init``: of the weights. ``pool``: features are the class token, or the mean of the patches.
    ``channels``: of the images. Positions, frozen patches and ``xavier`` are MoCo v3's (arXiv:2104.02057,
    sections 4.1, 4.2).
    """
    _check_sizes(image_size, patch, width, heads, positions)
    vit = VisionTransformer(
        img_size=image_size,
        patch_size=patch,
        in_chans=channels,
        num_classes=0,
        global_pool="token" if pool == "token" else "avg",
        fc_norm=False,  # the norm comes before pooling, and is of tokens, in either way
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=mlp_ratio,
        drop_path_rate=drop_path,
        dynamic_img_size=any_size,
    )
    if init == "xavier":
        _start_xavier(vit)
    else:
        nn.init.trunc_normal_(vit.cls_token, std=0.02)  # timm's other weights are so already
    if positions == "sincos":
        fixed = sincos_positions(image_size // patch, width)
        vit.pos_embed = nn.Parameter(fixed.unsqueeze(0), requires_grad=False)
    if frozen_patches:
        for parameter in vit.patch_embed.parameters():
            parameter.requires_grad_(False)
    return Backbone(vit, width)


class VisionTransformer(timm.VisionTransformer):
    """timm's, which says what is wrong with an image's size, and interpolates positions as DINO's code does."""

    cls_token: nn.Parameter  # timm's may be without, but not with the options above
    pos_embed: nn.Parameter

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
        # timm's ``forward_features`` calls this name; it has no public one.
        if not self.dynamic_img_size:
            tokens: Tensor = super()._pos_embed(x)
            return tokens
        positions = resample_positions(self.pos_embed, self.patch_embed.grid_size, (x.shape[1], x.shape[2]))
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(1, 2)], dim=1)
        return self.pos_drop(tokens + positions)  # type: ignore[no-any-return]


def _start_xavier(vit: VisionTransformer) -> None:
    """Xavier-uniform weights, with q, k and v as three layers (MoCo v3, section 4.1; code: vits.py)."""
    for name, module in vit.named_modules():
        if isinstance(module, nn.Linear):
            layers = 3 if name.endswith("qkv") else 1
            _uniform(module, fan_in=module.in_features, fan_out=module.out_features // layers)
    patches = vit.patch_embed.proj
    _uniform(patches, fan_in=patches.in_channels * math.prod(patches.kernel_size), fan_out=patches.out_channels)


def sincos_positions(grid: int, width: int) -> Tensor:
    """(1 + grid², width) fixed positions: zeros for the class token, then sines and cosines of the column and of the
    row, at width/4 frequencies each, from 1 down to 1/10000 (MoCo v3, section 4.1; Vaswani et al., 2017)."""
    frequency = 10000.0 ** -(torch.arange(width // 4) / (width // 4))
    row, column = torch.meshgrid(torch.arange(grid).float(), torch.arange(grid).float(), indexing="ij")
    angles = [index.flatten().unsqueeze(1) * frequency for index in (column, row)]  # (grid², width/4) each
    waves = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
    return torch.cat([torch.zeros(1, width), waves])


def resample_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
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


def _check_sizes(image_size: int, patch: int, width: int, heads: int, positions: str) -> None:
    where = "method.encoder.backbone"
    if image_size % patch:
        raise ContralexError(f"{where}.image_size is {image_size}, and patch, {patch}, does not divide it; change one.")
    if width % heads:
        raise ContralexError(f"{where}.width is {width}, and heads, {heads}, does not divide it; change one.")
    if positions == "sincos" and width % 4:
        raise ContralexError(f"{where}.width is {width}, and positions sincos need a multiple of 4; change one.")
