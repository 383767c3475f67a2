"""A tower for token ids, and one transformer for images and token ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.plugin import Encoder, at_least_float32
from contralex_clip.initialization import init_text_as_siglip
from contralex_clip.spec import BPE_VOCAB
from contralex_clip.transformer import Activation, Transformer


class TextEncoder(Encoder):
    """Token ids (B, T) to a transformer's last vector at the end of the text, projected to ``dim`` (CLIP, §2.4).

    ``vocab``: how many ids there are; ``context``: T.
    """

    def __init__(
        self,
        vocab: int = BPE_VOCAB,
        context: int = 77,
        width: int = 512,
        layers: int = 12,
        heads: int = 8,
        dim: int = 512,
        activation: Activation = "quick_gelu",
        normalize: bool = True,
        causal: bool = True,
        pool: Literal["end", "last"] = "end",
        projection_bias: bool = False,
        init: Literal["clip", "siglip"] = "clip",
    ) -> None:
        super().__init__()
        self.dim = dim
        self.stem = TextStem(vocab, context, width)
        self.transformer = Transformer(width, layers, heads, activation)
        self.norm = nn.LayerNorm(width)
        self.projection = projection(width, dim, bias=projection_bias)
        self.causal, self.pool, self.normalize = causal, pool, normalize
        if init == "siglip":
            init_text_as_siglip(self.stem, self.transformer, self.projection)

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {view: self.projection(self.features(tokens)) for view, tokens in views.items()}

    def features(self, view: Tensor) -> Tensor:
        tokens = self.norm(self.transformer(self.stem(view), self.causal))  # (B, T, W)
        return tokens[:, -1] if self.pool == "last" else select_end(tokens, view)

    def keys(self, embedded: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {view: (scale(vectors, self.normalize), None) for view, vectors in embedded.items()}


class SharedTransformer(Encoder):
    """Images (B, 3, H, W) and token ids (B, T) through one transformer, one last norm and one projection.

    Only the stems differ: patches or tokens, and their positions. An image is read at a class token before its patches,
    which all attend to each other; a text at its end, where a token attends to those before it.
    """

    def __init__(
        self,
        image_size: int = 224,
        patch: int = 32,
        vocab: int = BPE_VOCAB,
        context: int = 77,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        dim: int = 512,
        activation: Activation = "quick_gelu",
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.image_stem = ImageStem(image_size, patch, width)
        self.text_stem = TextStem(vocab, context, width)
        self.transformer = Transformer(width, layers, heads, activation)
        self.norm = nn.LayerNorm(width)
        self.projection = projection(width, dim)
        self.normalize = normalize

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {view: self.projection(self.features(item)) for view, item in views.items()}

    def features(self, view: Tensor) -> Tensor:
        if view.is_floating_point():  # an image
            return self.norm(self.transformer(self.image_stem(view), causal=False))[:, 0]  # type: ignore[no-any-return]
        return select_end(self.norm(self.transformer(self.text_stem(view), causal=True)), view)

    def keys(self, embedded: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {view: (scale(vectors, self.normalize), None) for view, vectors in embedded.items()}


class TextStem(nn.Module):
    """Token ids (B, T) to (B, T, W): a vector for each token plus one for its position."""

    def __init__(self, vocab: int, context: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, width)
        self.positions = nn.Parameter(torch.empty(context, width))
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.tokens(tokens) + self.positions  # type: ignore[no-any-return]


class ImageStem(nn.Module):
    """Images (B, 3, H, W) to (B, 1+P, W): a class token, then its patches; positions; a norm."""

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


def select_end(vectors: Tensor, tokens: Tensor) -> Tensor:
    """(B, T, W) to (B, W): the vector where each text ends, whose token has the highest id of all."""
    return vectors[torch.arange(len(tokens), device=tokens.device), tokens.argmax(dim=1)]


def scale(vectors: Tensor, unit: bool) -> Tensor:
    """The vectors of unit length, in at least float32 even under autocast; or as they are, where not ``unit``."""
    return F.normalize(at_least_float32(vectors), dim=1) if unit else vectors
