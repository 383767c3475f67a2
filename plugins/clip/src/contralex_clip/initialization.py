"""How weights begin in CLIP and in SigLIP, where that is not as timm or torch would begin them.

CLIP: openai/CLIP, model.py. Its image tower begins as torch's layers do, but for its tables; its text tower is drawn by
width and depth, see :mod:`contralex_clip.transformer`. SigLIP: google-research/big_vision, vit.py and
text_transformer.py. Both towers are drawn alike.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from contralex.plugin import Backbone, ContralexError, timm_backbone

if TYPE_CHECKING:
    from contralex_clip.encoders import TextStem
    from contralex_clip.transformer import Transformer

_TINY = 1e-6  # of the biases of SigLIP's MLPs


def clip_vit(name: str, init: Literal["clip", "siglip"] = "clip", drop_path: float = 0.0) -> Backbone:
    """Make timm's ViT of this name, with first weights as in CLIP's or SigLIP's official code."""
    backbone = timm_backbone(name, drop_path=drop_path)
    from timm.models.vision_transformer import VisionTransformer  # an extra, which build asks for

    if not isinstance(backbone.module, VisionTransformer):
        raise ContralexError(
            f"method.encoder.backbone.name: {name} is no ViT of timm's; choose one, or a backbone of kind timm."
        )
    init_as_clip(backbone.module) if init == "clip" else init_as_siglip(backbone.module)
    return backbone


def init_as_clip(vit: Any) -> None:
    """Of timm's ViT, the class token and the positions are drawn with 1/√width, and linear layers as those of torch's
    attention are, where q, k and v are one matrix to Xavier's law, and as torch's own."""
    for table in (vit.cls_token, vit.pos_embed):
        if table is not None:
            nn.init.normal_(table, std=vit.embed_dim**-0.5)
    for block in vit.blocks:
        nn.init.xavier_uniform_(block.attn.qkv.weight)
        nn.init.zeros_(block.attn.qkv.bias)
        block.attn.proj.reset_parameters()
        nn.init.zeros_(block.attn.proj.bias)
        block.mlp.fc1.reset_parameters()
        block.mlp.fc2.reset_parameters()


def init_as_siglip(vit: Any) -> None:
    """Of timm's ViT, positions are drawn with 1/√width, and linear layers by Xavier's law, q, k and v each alone."""
    if vit.pos_embed is not None:
        nn.init.normal_(vit.pos_embed, std=vit.embed_dim**-0.5)
    _lecun(vit.patch_embed.proj.weight)
    if vit.patch_embed.proj.bias is not None:
        nn.init.zeros_(vit.patch_embed.proj.bias)
    _xavier(vit)
    if vit.attn_pool is not None:
        _uniform(vit.attn_pool.latent, 1 + vit.embed_dim)


def init_text_as_siglip(stem: TextStem, transformer: Transformer, projection: nn.Linear) -> None:
    """As the image tower. The projection is flax's dense layer, and tokens are drawn with 1/√width."""
    width = stem.positions.shape[1]
    nn.init.normal_(stem.tokens.weight, std=width**-0.5)
    nn.init.normal_(stem.positions, std=width**-0.5)
    _xavier(transformer)
    _lecun(projection.weight)


_PARTS = {"qkv": 3, "kv": 2}  # layers that are one here, and several there
_MLP = ("fc1", "fc2", "widen", "narrow")


def _xavier(module: nn.Module) -> None:
    for name, linear in module.named_modules():
        if not isinstance(linear, nn.Linear):
            continue
        last = name.rpartition(".")[2]
        _uniform(linear.weight, linear.in_features + linear.out_features // _PARTS.get(last, 1))
        if last in _MLP:
            nn.init.normal_(linear.bias, std=_TINY)
        else:
            nn.init.zeros_(linear.bias)


def _lecun(weight: Tensor) -> None:
    """flax's own: variance 1/fan-in, of a normal distribution that is cut at two deviations."""
    std = weight[0].numel() ** -0.5 / 0.87962566103423978  # what the cut leaves of it
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def _uniform(weight: Tensor, fans: int) -> None:
    limit = math.sqrt(6 / fans)
    nn.init.uniform_(weight, -limit, limit)
