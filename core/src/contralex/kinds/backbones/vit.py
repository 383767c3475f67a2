"""Vision Transformers, made of timm's, with what self-supervised methods change of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.errors import ContralexError, remedy
from contralex.kinds.backbones.specs import swiglu_width
from contralex.lookup.slots import Backbone, PlacesBackbone

try:
    from timm.layers.drop import DropPath
    from timm.layers.mlp import GluMlp
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
    init: Literal["trunc_normal", "xavier", "dinov2"] = "trunc_normal",
    pool: Literal["token", "mean"] = "token",
    channels: int = 3,
    layer_scale: float | None = None,
    drop_path_rule: Literal["linear", "uniform"] = "linear",
    feed_forward: Literal["mlp", "swiglu"] = "mlp",
    registers: int = 0,
    mask_token: bool = False,
    resampling: Literal["offset", "antialias"] = "offset",
) -> Backbone:
    """A Vision Transformer by its sizes (arXiv:2010.11929), and ``width``, the dimensions of its features.

    Its module is a :class:`VisionTransformer`, which gives the patches' tokens, too (``encode_places``).

    ``image_size`` and ``patch``: pixels of a side. ``depth``: blocks. ``heads``: of attention in each.
    ``mlp_ratio``: the hidden layer of a block's MLP, in widths. ``drop_path``: the rate at which the last block is left
    out in training. ``any_size``: it takes images of other sizes too, with positions interpolated as DINO's code does.
    ``positions``: learnt embeddings, or fixed sines and cosines. ``frozen_patches``: the patches' embedding stays as
    it began. ``init``: of the weights. ``pool``: features are the class token, or the mean of the patches.
    ``channels``: of the images. Positions, frozen patches and ``xavier`` are MoCo v3's (arXiv:2104.02057,
    sections 4.1, 4.2).

    DINOv2's (arXiv:2304.07193, section 5 and appendix; code: vision_transformer.py, layers/): ``layer_scale``: what
    multiplies the output of each attention and MLP at first, learnt; None: nothing does. ``drop_path_rule``:
    ``uniform``, all blocks have the rate ``drop_path``, and a random part of the batch is computed at all.
    ``feed_forward``: an MLP, or ``swiglu``, silu(x₁)·x₂ of two thirds of its hidden layer. ``registers``: learnt tokens
    without a position (arXiv:2309.16588). ``mask_token``: what stands for patches that ``encode_places`` is told to
    hide. ``resampling``: positions of other sizes with DINO's ``offset``, or to the exact size and with ``antialias``.
    """
    _check_sizes(image_size, patch, width, heads, positions)
    swiglu: dict[str, Any] = {"mlp_layer": _swiglu(2 * swiglu_width(width, mlp_ratio)), "act_layer": nn.SiLU}
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
        init_values=layer_scale,
        reg_tokens=registers,
        drop_path_rate=drop_path,
        dynamic_img_size=any_size,
        block_fn=timm.Block if drop_path_rule == "linear" else SubsetBlock,
        **(swiglu if feed_forward == "swiglu" else {}),
    )
    vit.resampling = resampling
    if registers:  # they come after the positions, of which timm has one for each
        vit.pos_embed = nn.Parameter(vit.pos_embed.detach()[:, registers:].clone())
    if drop_path_rule == "uniform":
        _drop_uniformly(vit, drop_path)
    if init == "xavier":
        _start_xavier(vit)
    elif init == "trunc_normal":
        nn.init.trunc_normal_(vit.cls_token, std=0.02)  # timm's other weights are so already, and DINOv2's all
    vit.register_parameter("mask_token", nn.Parameter(torch.zeros(1, width)) if mask_token else None)
    if positions == "sincos":
        fixed = sincos_positions(image_size // patch, width)
        vit.pos_embed = nn.Parameter(fixed.unsqueeze(0), requires_grad=False)
    if frozen_patches:
        for parameter in vit.patch_embed.parameters():
            parameter.requires_grad_(False)
    return Backbone(vit, width)


class VisionTransformer(timm.VisionTransformer, PlacesBackbone):
    """timm's, which says what is wrong with an image's size, interpolates positions as DINO's code does, and can hide
    patches.

    (B, C, H, W) to (B, F). ``pos_embed`` (1, 1 + P, F) are positions of the class token and the patches; registers have
    none.
    """

    cls_token: nn.Parameter  # timm's may be without, but not with the options above
    pos_embed: nn.Parameter
    mask_token: nn.Parameter | None
    resampling: Literal["offset", "antialias"] = "offset"

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self._check_images(x)
        features: Tensor = super().forward(x, *args, **kwargs)
        return features

    def encode_places(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The features (B, F), and the tokens of the patches (B, P, F), row by row of the :meth:`grid`, after the last
        norm.

        ``mask`` (B, P): whether a patch is hidden. The mask token takes its place before positions are added (BEiT;
        iBOT, arXiv:2111.07832, section 3.1; DINOv2).
        """
        self._check_images(images)
        patches = self.patch_embed(images)  # (B, P, F), or (B, rows, columns, F)
        if mask is not None:
            patches = torch.where(mask.reshape(*patches.shape[:-1], 1), self._mask_token().to(patches.dtype), patches)
        tokens = self.norm(self.blocks(self.norm_pre(self.patch_drop(self._pos_embed(patches)))))
        return self.forward_head(tokens), tokens[:, self.num_prefix_tokens :]

    def grid(self, images: Tensor) -> tuple[int, int]:
        """The rows and the columns of patches of images (B, C, H, W)."""
        rows, columns = self.patch_embed.patch_size
        return images.shape[-2] // rows, images.shape[-1] // columns

    def _mask_token(self) -> Tensor:
        if self.mask_token is None:
            raise ContralexError(
                "A view hides patches, and the backbone has nothing to put in their place; give it a mask token:"
                + remedy("--set", "method.encoder.backbone.mask_token=true")
            )
        return self.mask_token

    def _check_images(self, images: Tensor) -> None:
        height, width = images.shape[-2:]
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

    def _pos_embed(self, x: Tensor) -> Tensor:
        # timm's ``forward_features`` calls this name; it has no public one.
        positions: Tensor = self.pos_embed
        if self.dynamic_img_size:
            positions = resample_positions(
                positions, self.patch_embed.grid_size, (x.shape[1], x.shape[2]), self.resampling
            )
            x = x.flatten(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + positions
        if self.reg_token is not None:
            tokens = torch.cat([tokens[:, :1], self.reg_token.expand(len(x), -1, -1), tokens[:, 1:]], dim=1)
        return self.pos_drop(tokens)  # type: ignore[no-any-return]


class SubsetBlock(timm.Block):
    """timm's block, which with a drop path computes a random part of the batch in training: max(⌊B(1−p)⌋, 1) samples,
    whose outputs count B/their number times (DINOv2; code: layers/block.py, ``forward_nested``, by which its student
    goes at any rate; ``forward``, of a single tensor, does so above .1 alone)."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        rate = float(getattr(self.drop_path1, "drop_prob", 0.0))  # without a rate, timm has an Identity there
        if not self.training or not rate:
            dropped: Tensor = super().forward(x, *args, **kwargs)
            return dropped
        x = _add_for_some(x, rate, lambda some: self.ls1(self.attn(self.norm1(some), *args, **kwargs)))
        return _add_for_some(x, rate, lambda some: self.ls2(self.mlp(self.norm2(some))))


def _add_for_some(x: Tensor, rate: float, branch: Callable[[Tensor], Tensor]) -> Tensor:
    kept = max(int(len(x) * (1 - rate)), 1)
    chosen = torch.randperm(len(x), device=x.device)[:kept]
    return x.index_add(0, chosen, branch(x[chosen]).to(x.dtype), alpha=len(x) / kept)


def _drop_uniformly(vit: VisionTransformer, rate: float) -> None:
    for block in vit.blocks:
        block.drop_path1 = DropPath(rate) if rate else nn.Identity()
        block.drop_path2 = DropPath(rate) if rate else nn.Identity()


def _swiglu(both: int) -> Callable[..., nn.Module]:
    """Layers with x₁ and x₂, of ``both`` dimensions, by one layer; timm counts the hidden layer in widths of tokens,
    which do not give each number of dimensions."""

    def make(*, hidden_features: int, **options: Any) -> nn.Module:
        return SwiGLU(hidden_features=both, gate_last=False, **options)

    return make


class SwiGLU(GluMlp):
    """timm's layers of silu(x₁)·x₂, which begin as any other layer does (DINOv2; code: layers/swiglu_ffn.py)."""

    def init_weights(self) -> None:
        """Called by timm after all layers have their weights; its own makes x₂ of 1, with weights of 1e-6."""


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


def resample_positions(
    positions: Tensor,
    old: tuple[int, int],
    new: tuple[int, int],
    resampling: Literal["offset", "antialias"] = "offset",
) -> Tensor:
    """(1, 1 + rows·columns, D) positions for a ``new`` grid, from those of the ``old`` one (DINO; code:
    vision_transformer.py, ``interpolate_pos_encoding``).

    Bicubic. ``offset``: without antialiasing. The code asks for .1 of a row more than there are, against rounding;
    since torch 1.6 that is also how far apart the samples are: old / (new + .1). ``antialias``: old / new apart, and
    with antialiasing, as DINOv2's networks with registers have it.
    """
    if new == old:
        return positions
    grid = positions[:, 1:].unflatten(1, old).permute(0, 3, 1, 2)
    if resampling == "offset":
        ratio = ((new[0] + 0.1) / old[0], (new[1] + 0.1) / old[1])
        sampled = F.interpolate(grid, scale_factor=ratio, mode="bicubic")
    else:
        sampled = F.interpolate(grid, size=new, mode="bicubic", antialias=True)
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
