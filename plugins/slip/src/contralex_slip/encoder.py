"""SLIP's encoder: CLIP's two towers, and a second head on that of the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor
from torch.nn import functional as F

from contralex.plugin import (
    Backbone,
    ContralexError,
    Encoder,
    ImageEncoder,
    Layer,
    TowersEncoder,
    at_least_float32,
    mlp,
)
from contralex_slip.spec import IMAGE, SELFSUP

_CAPTION = 1


class SlipTowers(TowersEncoder):
    """Views 0, 2, 3, ... to the image tower, view 1 to the captions' tower, all to vectors (B, D). Features of view 2
    and those after it go to the head ``selfsup`` as well, to vectors (B, E) (SLIP, arXiv:2112.12750, Algorithm 1; code:
    models.py, SLIP). Each view is a pass, and a batch to BatchNorm, of its own.

    ``projector``: layers from the backbone's features to D; ``selfsup``: from the same features to E; none: there is no
    such head.
    """

    def __init__(
        self, backbone: Backbone, projector: Sequence[Layer], text: Encoder, selfsup: Sequence[Layer] = ()
    ) -> None:
        super().__init__({"image": ImageEncoder(backbone, projector), "text": text}, "first")
        self.selfsup, self.selfsup_dim = mlp(backbone.dim, selfsup)
        self._has_selfsup = len(selfsup) > 0

    def tower(self, view: int) -> Encoder:
        return super().tower(view if view <= _CAPTION else 0)

    @property
    def outputs(self) -> dict[str, int]:
        return {IMAGE: self.dim, **({SELFSUP: self.selfsup_dim} if self._has_selfsup else {})}

    @property
    def has_same_sides(self) -> bool:
        return all(self.tower(view).has_same_sides for view in (0, _CAPTION))

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Any]:
        paired = super().forward({view: item for view, item in views.items() if view <= _CAPTION})
        return {**paired, **{view: self._embed_crop(image) for view, image in views.items() if view > _CAPTION}}

    def encode_keys(self, views: Mapping[int, Tensor]) -> dict[int, Any]:
        return self(views)

    def _embed_crop(self, image: Tensor) -> dict[str, Tensor]:
        """By the outputs' names."""
        features = self.image.features(image)
        embedded = {IMAGE: self.image.projector(features)}
        return {**embedded, SELFSUP: self.selfsup(features)} if self._has_selfsup else embedded

    @property
    def image(self) -> ImageEncoder:
        return cast(ImageEncoder, self.tower(0))

    def queries_of(self, output: str, embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return _pick(embedded) if output == SELFSUP else super().queries_of(output, embedded)

    def keys_of(self, output: str, embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return _pick(embedded) if output == SELFSUP else super().keys_of(output, embedded)


def _pick(embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
    """The vectors of the second head, which views 0 and 1 do not have."""
    missing = [view for view in embedded if view <= _CAPTION]
    if missing:
        raise ContralexError(
            f"A look-up asks for the output {SELFSUP} of view {missing[0]}, and only the crops after the caption have "
            "it, which are views 2, 3, ...; let its matches be of those."
        )
    return {view: (F.normalize(at_least_float32(each[SELFSUP]), dim=1), None) for view, each in embedded.items()}
