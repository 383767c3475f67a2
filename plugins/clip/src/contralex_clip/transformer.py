"""The transformer of CLIP's towers: residual blocks with the norm first, and its initialisation."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["quick_gelu", "gelu"]


class QuickGELU(nn.Module):
    """x·σ(1.702·x), the approximation of GELU that CLIP's published weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Transformer(nn.Module):
    """``layers`` blocks of self-attention and an MLP four times as wide, each behind a LayerNorm, each residual."""

    def __init__(self, width: int, layers: int, heads: int, activation: Activation) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(width, layers, heads, activation) for _ in range(layers)))

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        """(B, T, W) to the same; ``causal``: a token attends to itself and those before it."""
        for block in self.blocks:
            x = block(x, causal)
        return x


class Block(nn.Module):
    def __init__(self, width: int, layers: int, heads: int, activation: Activation) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.activation = QuickGELU() if activation == "quick_gelu" else nn.GELU()
        self.narrow = nn.Linear(4 * width, width)
        self._init_weights(width, layers)

    def _init_weights(self, width: int, layers: int) -> None:
        """As openai/CLIP's model.py: what enters the residual stream is smaller, the more layers there are. It names no
        biases, so the MLP's are torch's, and attention's zero."""
        into = width**-0.5 * (2 * layers) ** -0.5
        for linear, std in (
            (self.qkv, width**-0.5),
            (self.out, into),
            (self.widen, (2 * width) ** -0.5),
            (self.narrow, into),
        ):
            nn.init.normal_(linear.weight, std=std)
        for linear in (self.qkv, self.out):
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        x = x + self._attend(self.norm_1(x), causal)
        mixed: Tensor = x + self.narrow(self.activation(self.widen(self.norm_2(x))))
        return mixed

    def _attend(self, x: Tensor, causal: bool) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, T, W/H)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        attended: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return attended
