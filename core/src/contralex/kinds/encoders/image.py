"""Image encoders: a backbone, a projector, a predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.errors import ContralexError
from contralex.lookup.batch_norm import rows_per_sample
from contralex.lookup.slots import Backbone, Encoder

if TYPE_CHECKING:
    from contralex.kinds.encoders.specs import JigsawHead, Layer


class ImageEncoder(Encoder):
    """Backbone → projector, and on the query's side → predictor: images (B, C, H, W) to vectors (B, D).

    ``projector``: layers from the features (B, F) to the vectors; none: the features themselves. ``predictor``: layers
    on the query's side alone. ``batching``: whether the views of a sample go through the network ``together``, as one
    batch (SimCLR; crops of one size each in SwAV), or ``apart`` (BYOL, SimSiam), which decides BatchNorm's statistics.
    ``normalize``: whether vectors are brought to unit length. ``jigsaw``: the head of views in pieces (B, P, C, H, W),
    in place of the projector (PIRL). MoCo, arXiv:1911.05722; SimCLR, arXiv:2002.05709; BYOL, arXiv:2006.07733,
    section 3.1.

    >>> import contralex, torch
    >>> encoder = contralex.ImageEncoder(contralex.Backbone(torch.nn.Linear(192, 16), dim=16))
    >>> encoder(torch.rand(2, 192)).shape
    torch.Size([2, 16])
    """

    backbone: nn.Module

    def __init__(
        self,
        backbone: Backbone,
        projector: Sequence[Layer] = (),
        predictor: Sequence[Layer] = (),
        batching: Literal["together", "apart"] = "apart",
        normalize: bool = True,
        jigsaw: JigsawHead | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.feature_dim = backbone
        self.projector, self.dim = mlp(self.feature_dim, projector)
        self.predictor, predicted_dim = mlp(self.dim, predictor)
        if predicted_dim != self.dim:
            raise ContralexError(
                f"method.encoder.predictor ends in {predicted_dim} dimensions and the projector in {self.dim}; "
                "they must be equal, because the one is compared with the other."
            )
        self.jigsaw = PieceHead(self.feature_dim, self.dim, jigsaw) if jigsaw else None
        self.together = batching == "together"
        self.normalize = normalize

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        in_pieces = {view: pieces for view, pieces in views.items() if pieces.dim() == 5}
        if in_pieces:
            images = {view: image for view, image in views.items() if view not in in_pieces}
            return {
                **(self(images) if images else {}),
                **{view: self._embed_pieces(p) for view, p in in_pieces.items()},
            }
        if not self.together:
            return {view: self.projector(self.features(image)) for view, image in views.items()}
        features: list[Tensor] = []
        for group in _group_by_shape(views):  # crops of one size in one batch, as SwAV's multi-crop does
            features.extend(self.features(torch.cat(group)).split([len(image) for image in group]))
        embedded = self.projector(torch.cat(features)).split([len(image) for image in features])
        return dict(zip([view for view, _ in _sort_by_shape(views)], embedded, strict=True))

    def features(self, view: Tensor) -> Tensor:
        return self.backbone(view).flatten(1)  # type: ignore[no-any-return]

    def _embed_pieces(self, pieces: Tensor) -> Tensor:
        """(B, P, C, H, W), the pieces of a jigsaw, to (B, D)."""
        if self.jigsaw is None:  # a recipe is refused before; made by hand, it is said here
            raise ContralexError("A view is cut into pieces, and method.encoder.jigsaw, the head for them, is null.")
        with rows_per_sample(pieces.shape[1]):
            features = self.features(pieces.flatten(0, 1)).unflatten(0, pieces.shape[:2])
        vectors: Tensor = self.jigsaw(features)
        return vectors

    @property
    def has_same_sides(self) -> bool:
        is_own = type(self).queries is ImageEncoder.queries and type(self).keys is ImageEncoder.keys
        return is_own and not len(self.predictor)

    def queries(self, embedded: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor | None]]:
        if self.together and len(self.predictor):
            predicted = self.predictor(torch.cat(list(embedded.values())))
            parts = predicted.split([len(vectors) for vectors in embedded.values()])
            return {view: (self._scale(part), None) for view, part in zip(embedded, parts, strict=True)}
        return {view: (self._scale(self.predictor(vectors)), None) for view, vectors in embedded.items()}

    def keys(self, embedded: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {view: (self._scale(vectors), None) for view, vectors in embedded.items()}

    def _scale(self, vectors: Tensor) -> Tensor:
        # In float32 even under autocast: in float16 the guard against a zero length is itself zero.
        return F.normalize(vectors.float(), dim=1) if self.normalize else vectors


class PieceHead(nn.Module):
    """(B, P, F), the features of P pieces, to (B, D): layers on each, then on all in a row (PIRL, section 3.2)."""

    def __init__(self, feature_dim: int, dim: int, head: JigsawHead) -> None:
        super().__init__()
        self.pieces = head.pieces
        self.piece, piece_dim = mlp(feature_dim, head.piece)
        self.joined, joined_dim = mlp(piece_dim * head.pieces, head.joined)
        if joined_dim != dim:
            raise ContralexError(
                f"method.encoder.jigsaw.joined ends in {joined_dim} dimensions and the projector in {dim}; they must "
                "be equal, because both are looked up in one dictionary."
            )

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[1] != self.pieces:
            raise ContralexError(
                f"method.encoder.jigsaw.pieces is {self.pieces}, and method.views cuts {features.shape[1]} pieces; "
                "set pieces to the square of jigsaw.grid."
            )
        with rows_per_sample(self.pieces):
            vectors = self.piece(features.flatten(0, 1)).unflatten(0, features.shape[:2])
        joined: Tensor = self.joined(vectors.flatten(1))
        return joined


def _sort_by_shape(views: Mapping[int, Tensor]) -> list[tuple[int, Tensor]]:
    shapes = list(dict.fromkeys(image.shape for image in views.values()))
    return sorted(views.items(), key=lambda item: shapes.index(item[1].shape))


def _group_by_shape(views: Mapping[int, Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.Size, list[Tensor]] = {}
    for _, image in _sort_by_shape(views):
        groups.setdefault(image.shape, []).append(image)
    return list(groups.values())


def mlp(width: int, layers: Sequence[Layer]) -> tuple[nn.Sequential, int]:
    """The layers as a module, and the width that it ends in. No layers: the identity."""
    modules: list[nn.Module] = []
    for layer in layers:
        linear = nn.Linear(width, layer.width, bias=layer.bias)
        if layer.init_std is not None:
            nn.init.normal_(linear.weight, std=layer.init_std)
            if layer.bias:
                nn.init.zeros_(linear.bias)
        modules.append(linear)
        width = layer.width
        if layer.norm == "batch":
            modules.append(_batch_norm(width, layer.affine))
        if layer.activation != "none":
            modules.append({"relu": nn.ReLU, "gelu": nn.GELU}[layer.activation]())
    return nn.Sequential(*modules), width


def _batch_norm(width: int, affine: str) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(width, affine=affine != "none")
    if affine == "scale":
        norm.register_parameter("bias", None)
    return norm
