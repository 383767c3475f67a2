"""A tower for token ids, and one transformer for images and token ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.plugin import Encoder
from contralex_clip.start import text_as_siglip
from contralex_clip.transformer import Transformer

if TYPE_CHECKING:
    from contralex_clip import spec as specs


class TextEncoder(Encoder):
    """Token ids (B, T) to the transformer's last vector at the end of the text, and its projection (CLIP, §2.4)."""

    def __init__(self, spec: specs.Text) -> None:
        super().__init__()
        self.dim = spec.dim
        self.stem = TextStem(spec.vocab, spec.context, spec.width)
        self.transformer = Transformer(spec.width, spec.layers, spec.heads, spec.activation)
        self.norm = nn.LayerNorm(spec.width)
        self.projection = projection(spec.width, spec.dim, bias=spec.projection_bias)
        self.causal, self.pool, self.normalize = spec.causal, spec.pool, spec.normalize
        if spec.init == "siglip":
            text_as_siglip(self)

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {view: self.projection(self.features(tokens)) for view, tokens in views.items()}

    def features(self, view: Tensor) -> Tensor:
        places = self.norm(self.transformer(self.stem(view), self.causal))  # (B, T, W)
        return places[:, -1] if self.pool == "last" else at_end(places, view)

    def keys(self, embedded: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {view: (scaled(vectors, self.normalize), None) for view, vectors in embedded.items()}


class SharedTransformer(Encoder):
    """Images (B, 3, H, W) and token ids (B, T) through one transformer, one last norm and one projection.

    What is a modality's own is how it enters: patches or tokens, and their positions. An image is read at a place of
    its own before the patches, which see each other; a text at its end, where a place sees those before it.
    """

    def __init__(self, spec: specs.SharedTransformer) -> None:
        super().__init__()
        self.dim = spec.dim
        self.image_stem = ImageStem(spec.image_size, spec.patch, spec.width)
        self.text_stem = TextStem(spec.vocab, spec.context, spec.width)
        self.transformer = Transformer(spec.width, spec.layers, spec.heads, spec.activation)
        self.norm = nn.LayerNorm(spec.width)
        self.projection = projection(spec.width, spec.dim)
        self.normalize = spec.normalize

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {view: self.projection(self.features(item)) for view, item in views.items()}

    def features(self, view: Tensor) -> Tensor:
        if view.is_floating_point():  # an image
            return self.norm(self.transformer(self.image_stem(view), causal=False))[:, 0]  # type: ignore[no-any-return]
        return at_end(self.norm(self.transformer(self.text_stem(view), causal=True)), view)

    def keys(self, embedded: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {view: (scaled(vectors, self.normalize), None) for view, vectors in embedded.items()}


class TextStem(nn.Module):
    """Token ids (B, T) to (B, T, W): a vector for each token and each place."""

    def __init__(self, vocab: int, context: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, width)
        self.positions = nn.Parameter(torch.empty(context, width))
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.tokens(tokens) + self.positions  # type: ignore[no-any-return]


class ImageStem(nn.Module):
    """Images (B, 3, H, W) to (B, 1+P, W): a place of the image's own, then its patches; positions; a norm."""

    def __init__(self, size: int, patch: int, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch, bias=False)
        self.whole = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty(1 + (size // patch) ** 2, width))
        self.norm = nn.LayerNorm(width)
        for table in (self.whole, self.positions):
            nn.init.normal_(table, std=width**-0.5)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)  # (B, P, W)
        whole = self.whole.to(patches.dtype).expand(len(patches), 1, -1)
        return self.norm(torch.cat([whole, patches], dim=1) + self.positions)  # type: ignore[no-any-return]


def projection(width: int, dim: int, *, bias: bool = False) -> nn.Linear:
    linear = nn.Linear(width, dim, bias=bias)
    nn.init.normal_(linear.weight, std=width**-0.5)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


def at_end(places: Tensor, tokens: Tensor) -> Tensor:
    """(B, T, W) to (B, W): the place where each text ends, whose token has the highest id of all."""
    return places[torch.arange(len(tokens), device=tokens.device), tokens.argmax(dim=1)]


def scaled(vectors: Tensor, unit: bool) -> Tensor:
    """Of unit length, in float32 even under autocast, where that is asked for."""
    return F.normalize(vectors.float(), dim=1) if unit else vectors
