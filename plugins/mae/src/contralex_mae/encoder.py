"""MAE's encoder of what is visible, and decoder of what is not."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from contralex.plugin import Backbone, ContralexError, Encoder, at_least_float32, refuse_if, sincos_positions
from contralex_mae.spec import DECODER, Decoder


class MaskedAutoencoder(Encoder):
    """Views (B, C + 1, H, W) to a prediction (B, Q, D) for each hidden patch, D = C·patch² pixel values.

    A query is tagged with the position that is hidden, so its target is the patch at that position. ``backbone``: a
    timm Vision Transformer, such as :func:`contralex.plugin.vit_backbone` makes.
    """

    backbone: Any  # timm's VisionTransformer, whose parts are used one by one

    def __init__(self, backbone: Backbone, decoder: Decoder = DECODER) -> None:
        super().__init__()
        self.backbone = backbone.module
        nn.init.normal_(self.backbone.cls_token, std=0.02)
        self.patch: int = self.backbone.patch_embed.patch_size[0]
        self._count: int | None = None  # of hidden patches
        self.dim: int = self.backbone.patch_embed.proj.in_channels * self.patch**2
        self.decoder = MaskDecoder(decoder, backbone.dim, self.dim, self.backbone.patch_embed.grid_size[0])

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {view: self.visible(masked) for view, masked in views.items()}

    def features(self, view: Tensor) -> Tensor:
        """(B, F) of the complete image: nothing is hidden."""
        features: Tensor = self.backbone(view)
        return features

    def embedding(self, view: Tensor) -> Tensor:
        """(B, D) the mean of the image's patches, because keys are pixels."""
        return patches(view, self.patch).mean(dim=1)

    def queries(self, embedded: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {view: self.decoder(seen) for view, seen in embedded.items()}

    def visible(self, masked: Tensor) -> Tensor:
        """(B, 1 + V, width + 1): the class token and the visible tokens, encoded, with their positions in the last
        dimension (-1: the class token). The decoder needs the positions, and an embedding is one tensor."""
        vit, image = self.backbone, masked[:, :-1]
        position = self._visible_positions(masked)  # (B, V)
        tokens = vit.patch_embed(image) + vit.pos_embed[:, 1:]
        tokens = tokens.gather(1, position.unsqueeze(2).expand(-1, -1, tokens.shape[2]))
        first = (vit.cls_token + vit.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        tokens = torch.cat([first, tokens], dim=1)
        for block in vit.blocks:
            tokens = block(tokens)
        with_class = nn.functional.pad(position, (1, 0), value=-1).unsqueeze(2)
        return torch.cat([at_least_float32(vit.norm(tokens)), with_class], dim=2)

    def _visible_positions(self, masked: Tensor) -> Tensor:
        vit, size = self.backbone, masked.shape[-1]
        if size != vit.patch_embed.img_size[0]:
            raise ContralexError(
                f"method.encoder.backbone.image_size is {vit.patch_embed.img_size[0]}, and method.views makes images "
                f"of {size} pixels; make the two equal."
            )
        hidden = patches(masked[:, -1:], self.patch)  # (B, P, patch²)
        other_size = ContralexError(
            f"method.encoder.backbone.patch is {self.patch}, and method.views hides patches of another size; make "
            "method.views.patch the same."
        )
        refuse_if((hidden != hidden[..., :1]).any(), other_size)
        hidden = hidden[..., 0]
        counts = hidden.sum(dim=1)
        if self._count is None:  # read once, because it is the same in every batch
            self._count = int(counts[0])
        nothing_to_predict = ContralexError(
            "method.views gives an image of which nothing, everything, or another number of patches than of the "
            "others is hidden, so nothing can be predicted; use views of kind masked."
        )
        if not 0 < self._count < hidden.shape[1]:
            raise nothing_to_predict
        refuse_if((counts != self._count).any(), nothing_to_predict)
        return hidden.argsort(dim=1, stable=True)[:, : hidden.shape[1] - self._count]


class MaskDecoder(nn.Module):
    """Tokens of the visible patches to pixels of the hidden ones, for which a learnt mask token stands in."""

    positions: Tensor

    def __init__(self, sizes: Decoder, before: int, pixels: int, grid: int) -> None:
        super().__init__()
        self.embed = nn.Linear(before, sizes.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.register_buffer("positions", sincos_positions(grid, sizes.width).unsqueeze(0), persistent=False)
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(
            Block(sizes.width, sizes.heads, qkv_bias=True, norm_layer=norm) for _ in range(sizes.depth)
        )
        self.norm = norm(sizes.width)
        self.predict = nn.Linear(sizes.width, pixels)
        nn.init.normal_(self.mask_token, std=0.02)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                for weight in module.weight.data.chunk(3 if name.endswith("qkv") else 1):
                    nn.init.xavier_uniform_(weight)
                nn.init.zeros_(module.bias)

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Visible tokens (B, 1 + V, width + 1) to predictions of the others (B, Q, D) and their positions (B, Q)."""
        batch, position = len(seen), seen[:, 1:, -1].long()  # (B, V)
        tokens = self.embed(seen[..., :-1])
        count = self.positions.shape[1] - 1
        full = self.mask_token.to(tokens.dtype).expand(batch, count, -1)
        full = full.scatter(1, position.unsqueeze(2).expand(-1, -1, tokens.shape[2]), tokens[:, 1:])
        tokens = torch.cat([tokens[:, :1], full], dim=1) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        absent = torch.ones(batch, count, device=seen.device).scatter(1, position, 0.0)
        hidden = absent.argsort(dim=1, descending=True, stable=True)[:, : count - position.shape[1]]
        tokens = tokens[:, 1:].gather(1, hidden.unsqueeze(2).expand(-1, -1, tokens.shape[2]))
        return self.predict(self.norm(tokens)), hidden


def patches(images: Tensor, size: int) -> Tensor:
    """(B, C, H, W) to (B, P, size²·C), row after row; in a patch pixel after pixel, its channels together."""
    cut = images.unfold(2, size, size).unfold(3, size, size)  # (B, C, rows, columns, size, size)
    return cut.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
