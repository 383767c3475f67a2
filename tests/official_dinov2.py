"""DINOv2's network in plain functions, from a state dict of the official layout (facebookresearch/dinov2,
dinov2/models/vision_transformer.py, layers/attention.py, layers/swiglu_ffn.py, layers/layer_scale.py)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def official_state(
    width: int,
    depth: int,
    patch: int,
    grid: int,
    *,
    feed_forward: str = "mlp",
    registers: int = 0,
    chunks: int = 0,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    """Random weights under the names of a published backbone. ``chunks``: blocks lie in so many parts, in each of which
    the earlier ones are empty, as training with FSDP writes them; 0: one after the other, as published."""
    chance = torch.Generator().manual_seed(5)

    def draw(*shape: int, spread: float = 0.2) -> Tensor:
        return torch.randn(*shape, generator=chance, dtype=dtype) * spread

    state = {
        "cls_token": draw(1, 1, width),
        "pos_embed": draw(1, 1 + grid**2, width),
        "mask_token": draw(1, width),
        "patch_embed.proj.weight": draw(width, 3, patch, patch),
        "patch_embed.proj.bias": draw(width),
        "norm.weight": 1 + draw(width),
        "norm.bias": draw(width),
    }
    if registers:
        state["register_tokens"] = draw(1, registers, width)
    hidden = 4 * width
    third = math.ceil(int(hidden * 2 / 3) / 8) * 8
    layers = (
        {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
        if feed_forward == "mlp"
        else {"mlp.w12": (2 * third, width), "mlp.w3": (width, third)}
    )
    for block in range(depth):
        part = f"blocks.{block // (depth // chunks)}." if chunks else "blocks."
        for name, shape in {"attn.qkv": (3 * width, width), "attn.proj": (width, width), **layers}.items():
            state[f"{part}{block}.{name}.weight"] = draw(*shape)
            state[f"{part}{block}.{name}.bias"] = draw(shape[0])
        for name in ("norm1", "norm2"):
            state[f"{part}{block}.{name}.weight"] = 1 + draw(width)
            state[f"{part}{block}.{name}.bias"] = draw(width)
        for name in ("ls1", "ls2"):
            state[f"{part}{block}.{name}.gamma"] = draw(width)
    return state


def forward(
    state: dict[str, Tensor], images: Tensor, heads: int, patch: int, *, antialias: bool, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The normed class token (B, D), and the normed tokens of the patches (B, P, D)."""
    tokens = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch)
    rows, columns = tokens.shape[2:]
    tokens = tokens.flatten(2).transpose(1, 2)
    if mask is not None:
        tokens = torch.where(mask[..., None], state["mask_token"][None], tokens)
    tokens = torch.cat([state["cls_token"].expand(len(tokens), -1, -1), tokens], dim=1)
    tokens = tokens + _positions(state["pos_embed"], rows, columns, antialias)
    count = 0
    if "register_tokens" in state:
        count = state["register_tokens"].shape[1]
        between = state["register_tokens"].expand(len(tokens), -1, -1)
        tokens = torch.cat([tokens[:, :1], between, tokens[:, 1:]], dim=1)
    prefixes = {name.rsplit(".attn.qkv.", 1)[0] for name in state if ".attn.qkv." in name}
    for prefix in sorted(prefixes, key=lambda name: int(name.rsplit(".", 1)[1])):
        block = {name.removeprefix(prefix + "."): tensor for name, tensor in state.items() if name.startswith(prefix)}
        tokens = tokens + block["ls1.gamma"] * _attention(block, _norm(block, "norm1", tokens), heads)
        tokens = tokens + block["ls2.gamma"] * _feed_forward(block, _norm(block, "norm2", tokens))
    tokens = _norm(state, "norm", tokens)
    return tokens[:, 0], tokens[:, 1 + count :]


def _positions(positions: Tensor, rows: int, columns: int, antialias: bool) -> Tensor:
    side = math.isqrt(positions.shape[1] - 1)
    if (rows, columns) == (side, side):
        return positions
    grid = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if antialias:
        sampled = F.interpolate(grid, (rows, columns), mode="bicubic", antialias=True)
    else:
        sampled = F.interpolate(
            grid, scale_factor=((rows + 0.1) / side, (columns + 0.1) / side), mode="bicubic", antialias=False
        )
    return torch.cat([positions[:, :1], sampled.flatten(2).transpose(1, 2)], dim=1)


def _norm(weights: dict[str, Tensor], name: str, tokens: Tensor) -> Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-6)


def _attention(block: dict[str, Tensor], tokens: Tensor, heads: int) -> Tensor:
    batch, length, width = tokens.shape
    joint = F.linear(tokens, block["attn.qkv.weight"], block["attn.qkv.bias"])
    query, key, value = joint.reshape(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    weights = (query @ key.transpose(-2, -1) * (width // heads) ** -0.5).softmax(dim=-1)
    mixed = (weights @ value).transpose(1, 2).reshape(batch, length, width)
    return F.linear(mixed, block["attn.proj.weight"], block["attn.proj.bias"])


def _feed_forward(block: dict[str, Tensor], tokens: Tensor) -> Tensor:
    if "mlp.w12.weight" in block:
        one, two = F.linear(tokens, block["mlp.w12.weight"], block["mlp.w12.bias"]).chunk(2, dim=-1)
        return F.linear(F.silu(one) * two, block["mlp.w3.weight"], block["mlp.w3.bias"])
    hidden = F.gelu(F.linear(tokens, block["mlp.fc1.weight"], block["mlp.fc1.bias"]))
    return F.linear(hidden, block["mlp.fc2.weight"], block["mlp.fc2.bias"])
