"""What a Vision Transformer attends to, and what its patches hold: of timm's models and of torchvision's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from contralex.evaluation.encoding import evaluating
from contralex.reporting.projection import principal_components


@dataclass(frozen=True)
class Seen:
    """Of B images: ``attention`` (B, heads, rows, columns) of the class token in the last block, or where there is none
    what the patches pay to each patch on average; ``tokens`` (B, rows, columns, D) after the last norm."""

    attention: Tensor
    tokens: Tensor
    has_class_token: bool


def is_transformer(backbone: nn.Module | None) -> bool:
    return backbone is not None and (_timm(backbone) or _torchvision(backbone))


@torch.no_grad()
def look(backbone: nn.Module, images: Tensor) -> Seen:
    """One forward pass of images (B, C, H, W) through a Vision Transformer, for which :func:`is_transformer` is
    true."""
    return _look_timm(backbone, images) if _timm(backbone) else _look_torchvision(backbone, images)


def colour_patches(tokens: Tensor) -> Tensor:
    """(B, 3, rows, columns) in [0, 1]: the first three principal components of the tokens (B, rows, columns, D) of all
    images together, as red, green and blue."""
    points, _ = principal_components(tokens.flatten(0, 2), 3)
    low, high = points.quantile(0.01, dim=0), points.quantile(0.99, dim=0)
    scaled: Tensor = ((points - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return scaled.reshape(*tokens.shape[:3], 3).permute(0, 3, 1, 2)


def _timm(backbone: nn.Module) -> bool:
    try:
        from timm.models import vision_transformer
    except ImportError:
        return False
    if not isinstance(backbone, vision_transformer.VisionTransformer) or not len(backbone.blocks):
        return False
    return isinstance(backbone.blocks[-1], vision_transformer.Block)


def _torchvision(backbone: nn.Module) -> bool:
    from torchvision.models import VisionTransformer

    return isinstance(backbone, VisionTransformer)


def _look_timm(vit: Any, images: Tensor) -> Seen:
    attention = vit.blocks[-1].attn
    last: dict[str, Tensor] = {}
    with evaluating(vit), _caught(attention, last, "inputs"), _caught(vit.norm, last, "tokens", output=True):
        vit(images)
    inputs = last["inputs"]
    heads = attention.num_heads
    queries, keys, _ = attention.qkv(inputs).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    weights = (attention.q_norm(queries) * attention.scale @ attention.k_norm(keys).transpose(-2, -1)).softmax(dim=-1)
    first = int(vit.num_prefix_tokens)
    patch = vit.patch_embed.patch_size
    grid = (images.shape[2] // patch[0], images.shape[3] // patch[1])
    return _seen(weights, last["tokens"], first, grid)


def _look_torchvision(vit: Any, images: Tensor) -> Seen:
    attention = vit.encoder.layers[-1].self_attention
    last: dict[str, Tensor] = {}
    with evaluating(vit), _caught(attention, last, "inputs"), _caught(vit.encoder, last, "tokens", output=True):
        vit(images)
    inputs = last["inputs"]
    _, weights = attention(inputs, inputs, inputs, need_weights=True, average_attn_weights=False)
    side = vit.patch_size
    return _seen(weights, last["tokens"], 1, (images.shape[2] // side, images.shape[3] // side))


def _seen(weights: Tensor, tokens: Tensor, first: int, grid: tuple[int, int]) -> Seen:
    """``weights``: (B, heads, T, T). ``first``: how many tokens stand before the patches."""
    paid = weights[:, :, 0, first:] if first else weights.mean(dim=2)
    return Seen(
        paid.unflatten(2, grid).float().cpu(),
        tokens[:, first:].unflatten(1, grid).float().cpu(),
        has_class_token=first > 0,
    )


@contextmanager
def _caught(module: nn.Module, into: dict[str, Tensor], name: str, *, output: bool = False) -> Iterator[None]:
    """Within, what goes into a module, or what comes out of it, is kept."""

    def keep_input(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        into[name] = given[0].detach()

    def keep_output(_: nn.Module, given: Any, made: Tensor) -> None:
        into[name] = made.detach()

    handle = module.register_forward_hook(keep_output) if output else module.register_forward_pre_hook(keep_input)
    try:
        yield
    finally:
        handle.remove()
