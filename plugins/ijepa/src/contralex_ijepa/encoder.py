"""I-JEPA's encoder of the context, and its predictor of the targets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.plugin import Backbone, ContralexError, Encoder, View, ViewBatch, pixels_of, refuse_if, sincos_positions
from contralex_ijepa.spec import Predictor

_PREDICTOR = Predictor()


class JointEmbeddingPredictor(Encoder):
    """Views in the company of their blocks to a prediction (B, K·T, D) for each place of the target blocks.

    The query side encodes the patches of the context alone. The key side encodes the whole image, and normalises each
    token to mean 0 and variance 1; it has to be another than the query side's, such as its moving average.
    ``backbone``: of :func:`contralex_ijepa.vit.patch_vit_backbone`.
    """

    backbone: Any  # a PatchTransformer, whose parts are used one by one
    takes_company = True

    def __init__(self, backbone: Backbone, predictor: Predictor = _PREDICTOR) -> None:
        super().__init__()
        self.backbone = backbone.module
        self.dim = backbone.dim
        self.patch: int = self.backbone.patch_embed.patch_size[0]
        heads = predictor.heads or self.backbone.blocks[0].attn.num_heads
        self.predictor = BlockPredictor(self.dim, self.backbone.patch_embed.grid_size[0], predictor, heads)

    def forward(self, views: Mapping[int, Any]) -> dict[int, Any]:
        """For each view the tokens (B, C, D) of its context, and with them the places of its blocks."""
        return {view: self._see(image) for view, image in views.items()}

    def encode_keys(self, views: Mapping[int, ViewBatch]) -> dict[int, Any]:
        """Whole images."""
        return {view: self.backbone.encode_tokens(pixels_of(image)) for view, image in views.items()}

    def features(self, view: Tensor) -> Tensor:
        """(B, F) of the complete image."""
        features: Tensor = self.backbone(view)
        return features

    def embedding(self, view: Any) -> Tensor:
        """(B, D) the mean of the whole image's keys."""
        vectors, _ = self.keys(self.encode_keys({0: view}))[0]
        return vectors.mean(dim=1)

    def queries(self, embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {
            view: (self.predictor(seen["tokens"], seen["context"], seen["targets"]), seen["targets"].flatten(1))
            for view, seen in embedded.items()
        }

    def keys(self, embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {view: (self._normalize(tokens), None) for view, tokens in embedded.items()}

    def _see(self, view: Any) -> dict[str, Tensor]:
        if not isinstance(view, View) or not {"context", "targets", "patch"} <= view.company.keys():
            raise ContralexError(
                "method.encoder: kind ijepa must be told which blocks it sees and predicts; use views of kind blocks."
            )
        refuse_if(
            (view.patch != self.patch).any(),
            ContralexError(
                f"method.encoder.backbone.patch is {self.patch}, and method.views draws blocks of patches of another "
                "size; make method.views.patch the same."
            ),
        )
        tokens = self.backbone.encode_tokens(view.pixels, view.context)
        return {"tokens": tokens, "context": view.context, "targets": view.targets}

    def _normalize(self, tokens: Any) -> Tensor:
        if isinstance(tokens, Mapping):
            raise ContralexError(
                "method.key_encoder: keys are tokens of the whole image, and this kind takes what the query side made "
                "of a part of it; use momentum or frozen."
            )
        return F.layer_norm(tokens, tokens.shape[-1:])


class BlockPredictor(nn.Module):
    """Tokens of the context to those of each target block, for which a learnt mask token stands in.

    A block is predicted by itself: it sees the context, and no other block (code: ijepa vision_transformer.py,
    ``VisionTransformerPredictor``).
    """

    positions: Tensor

    def __init__(self, dim: int, grid: int, sizes: Predictor, heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, sizes.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.register_buffer("positions", sincos_positions(grid, sizes.width)[1:], persistent=False)
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(
            Block(sizes.width, heads, qkv_bias=True, norm_layer=norm) for _ in range(sizes.depth)
        )
        self.norm = norm(sizes.width)
        self.predict = nn.Linear(sizes.width, dim)
        nn.init.trunc_normal_(self.mask_token, std=sizes.init_std)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=sizes.init_std)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, context: Tensor, targets: Tensor) -> Tensor:
        """(B, C, D) at the places ``context`` (B, C) to (B, K·T, D), at the places ``targets`` (B, K, T)."""
        blocks = targets.shape[1]
        seen = self.embed(tokens) + self.positions[context]  # (B, C, W)
        asked = (self.mask_token + self.positions[targets.flatten(0, 1)]).to(seen.dtype)  # (B·K, T, W)
        x = torch.cat([seen.repeat_interleave(blocks, dim=0), asked], dim=1)
        for block in self.blocks:
            x = block(x)
        predicted: Tensor = self.predict(self.norm(x[:, seen.shape[1] :])).unflatten(0, (-1, blocks)).flatten(1, 2)
        return predicted
