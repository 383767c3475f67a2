"""Image encoders: a backbone, a projector, a predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from contralex.errors import ContralexError
from contralex.kinds.encoders.coordinates import locate_places
from contralex.lookup.batch_norm import rows_per_sample
from contralex.lookup.names import IMAGE
from contralex.lookup.precision import at_least_float32
from contralex.lookup.slots import Backbone, Encoder, PlacesBackbone
from contralex.lookup.unit_length import to_unit_length
from contralex.lookup.view import View, ViewBatch, company_of, pixels_of

if TYPE_CHECKING:
    from contralex.kinds.encoders.specs import JigsawHead, Layer, Output


class ImageEncoder(Encoder):
    """Backbone → projector, and on the query's side → predictor: images (B, C, H, W) to vectors (B, D).

    ``projector``: layers from the features (B, F) to the vectors; none: the features themselves. ``predictor``: layers
    on the query's side alone. ``batching``: whether the views of a sample go through the network ``together``, as one
    batch (SimCLR; crops of one size each in SwAV), or ``apart`` (BYOL, SimSiam), which decides BatchNorm's statistics.
    ``normalize``: whether vectors are brought to unit length. ``jigsaw``: the head of views in pieces (B, P, C, H, W),
    in place of the projector (PIRL). ``outputs``: what else may be looked up of an image, by name, beside ``image``;
    of places (B, P, D) where they read the map of a :class:`~contralex.plugin.PlacesBackbone` (DenseCL,
    arXiv:2011.09157, section 3.1), or where those lie in the image (B, P, 2), of views with boxes (VICRegL,
    arXiv:2210.01571, section 3). MoCo, arXiv:1911.05722; SimCLR, arXiv:2002.05709; BYOL, arXiv:2006.07733, section 3.1.

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
        outputs: Mapping[str, Output] = MappingProxyType({}),
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
        self._others = dict(outputs)
        self._located = tuple(name for name, other in self._others.items() if other.reads == "coordinates")
        own_heads = {
            name: other for name, other in self._others.items() if other.head is None and name not in self._located
        }
        self.heads = nn.ModuleDict({name: OutputHead(name, self.feature_dim, own) for name, own in own_heads.items()})
        self._reads_places = any(other.reads != "pooled" for other in self._others.values())
        self.takes_company = any(other.reads in ("masked", "coordinates") for other in self._others.values())
        if self._reads_places and not isinstance(self.backbone, PlacesBackbone):
            raise ContralexError(
                f"method.encoder.outputs reads places, and the backbone {type(self.backbone).__name__} gives none; use "
                "a ResNet, a ConvNeXt, a ViT or another network that ends in a map."
            )

    @property
    def outputs(self) -> dict[str, int]:
        return {IMAGE: self.dim, **{name: self._width(name) for name in self._others}}

    def _width(self, output: str) -> int:
        return 2 if output in self._located else self._head(self._others[output].head or output).dim

    def forward(self, views: Mapping[int, ViewBatch]) -> dict[int, Any]:
        return self._encode(views, hides=True)

    def encode_keys(self, views: Mapping[int, ViewBatch]) -> dict[int, Any]:
        """Whole images: a mask hides nothing from the key side."""
        return self._encode(views, hides=False) if self.takes_company else self(views)

    def _encode(self, views: Mapping[int, ViewBatch], *, hides: bool) -> dict[int, Any]:
        in_pieces = {view: pixels_of(each) for view, each in views.items() if pixels_of(each).dim() == 5}
        if in_pieces:
            images = {view: image for view, image in views.items() if view not in in_pieces}
            return {
                **(self._encode(images, hides=hides) if images else {}),
                **{view: self._embed_pieces(p) for view, p in in_pieces.items()},
            }
        if not self.together and not self._others:
            return {view: self.projector(self.features(pixels_of(image))) for view, image in views.items()}
        if not self.together:
            return {view: self._embed([[image]], hides)[0] for view, image in views.items()}
        # Crops of one size in one batch, as SwAV's multi-crop does.
        embedded = self._embed(_group_by_shape(views), hides)
        return dict(zip([view for view, _ in _sort_by_shape(views)], embedded, strict=True))

    def features(self, view: Tensor) -> Tensor:
        return self.backbone(view).flatten(1)  # type: ignore[no-any-return]

    def _embed(self, groups: Sequence[Sequence[ViewBatch]], hides: bool) -> list[Any]:
        """What becomes of the images of each view, which have one size in each group: vectors (B, D), or where there
        are further outputs those of each by name. Layers of a head see all views at once, or those of one size where
        they read places."""
        counts = [[len(images) for images in group] for group in groups]
        read = [self._read(_join_views(group), hides) for group in groups]
        every = [count for group in counts for count in group]
        masked = [_join_masked(group) if hides else None for group in groups]

        def run(layers: nn.Module, reads: str) -> list[Tensor]:
            if reads == "pooled":
                return list(layers(_join([pooled for pooled, _ in read])).split(every))
            made = []
            for (_, places), group, at in zip(read, counts, masked, strict=True):
                if reads == "masked" and hides:
                    places = _select_places(places, at)
                made += apply_to_rows(layers, places).split(group)
            return made

        made = {(IMAGE, "pooled"): run(self.projector, "pooled")}
        if not self._others:
            return made[IMAGE, "pooled"]
        by_output = {IMAGE: made[IMAGE, "pooled"]}
        for name, other in self._others.items():
            if name in self._located:
                continue
            which = (other.head or name, other.reads)
            if which not in made:  # outputs that share a head share its pass
                made[which] = run(self._head(which[0]).projector, other.reads)
            by_output[name] = made[which]
        found = [dict(zip(by_output, vectors, strict=True)) for vectors in zip(*by_output.values(), strict=True)]
        if self.takes_company:
            for each, view in zip(found, [view for group in groups for view in group], strict=True):
                each.update(self._read_company(view, hides))
        return found

    def _read_company(self, view: ViewBatch, hides: bool) -> dict[str, Tensor]:
        """Where the masked patches are, for the rows of their queries; and where places lie in the image."""
        read = {}
        if hides and "masked" in company_of(view):
            read[_POSITIONS] = company_of(view)["masked"]
        if self._located and isinstance(view, View) and "boxes" in view.company:
            at = locate_places(view, cast(PlacesBackbone, self.backbone).grid(view.pixels))
            read |= dict.fromkeys(self._located, at)
        return read

    def _read(self, view: ViewBatch, hides: bool) -> tuple[Tensor, Tensor]:
        """The features (B, F), and those of the places (B, P, F), of which there are none where no output reads
        them."""
        images = pixels_of(view)
        if isinstance(self.backbone, PlacesBackbone) and self._reads_places:
            mask = company_of(view).get("mask") if hides else None
            pooled, places = self.backbone.encode_places(images, mask)
            return pooled.flatten(1), places
        pooled = self.features(images)
        return pooled, pooled.new_empty(len(pooled), 0, self.feature_dim)

    def _head(self, name: str) -> ImageEncoder | OutputHead:
        """Whose ``projector``, ``predictor`` and ``dim`` an output has."""
        return self if name == IMAGE else cast(OutputHead, self.heads[name])

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
        own = type(self)
        is_own = (own.queries, own.keys) == (ImageEncoder.queries, ImageEncoder.keys)
        is_own = is_own and (own.queries_of, own.keys_of) == (ImageEncoder.queries_of, ImageEncoder.keys_of)
        heads = [self, *(self._head(name) for name in self.heads)]
        return is_own and not any(len(head.predictor) for head in heads)

    def queries(self, embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
        predicted = self._predict(self.predictor, _pick(IMAGE, embedded))
        return {view: (self._scale(vectors), None) for view, vectors in predicted.items()}

    def keys(self, embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {view: (self._scale(vectors), None) for view, vectors in _pick(IMAGE, embedded).items()}

    def queries_of(self, output: str, embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
        if output == IMAGE:
            return self.queries(embedded)
        if output in self._located:
            return self.keys_of(output, embedded)
        head = self._head(self._others[output].head or output)
        return self._finish(output, self._predict(head.predictor, _pick(output, embedded)), embedded)

    def keys_of(self, output: str, embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
        if output == IMAGE:
            return self.keys(embedded)
        if output in self._located:
            return {view: (_pick_located(output, each), None) for view, each in embedded.items()}
        return self._finish(output, _pick(output, embedded), embedded)

    def _predict(self, layers: nn.Sequential, vectors: Mapping[int, Tensor]) -> dict[int, Tensor]:
        if not len(layers):
            return dict(vectors)
        if not self.together or len({each.shape[1:] for each in vectors.values()}) > 1:
            return {view: apply_to_rows(layers, each) for view, each in vectors.items()}
        predicted = apply_to_rows(layers, torch.cat(list(vectors.values())))
        return dict(zip(vectors, predicted.split([len(each) for each in vectors.values()]), strict=True))

    def _finish(
        self, output: str, vectors: Mapping[int, Tensor], embedded: Mapping[int, Any]
    ) -> dict[int, tuple[Tensor, Tensor | None]]:
        other = self._others[output]
        if other.mean:
            vectors = {view: each.mean(dim=1) for view, each in vectors.items()}
        if other.normalize:
            vectors = {view: _to_unit_length(each) for view, each in vectors.items()}
        if other.reads != "masked":
            return {view: (each, None) for view, each in vectors.items()}
        return {view: (each, embedded[view].get(_POSITIONS)) for view, each in vectors.items()}

    def _scale(self, vectors: Tensor) -> Tensor:
        return _to_unit_length(vectors) if self.normalize else vectors


class OutputHead(nn.Module):
    """The layers of a further output: from the backbone's features, and on the query's side a predictor."""

    def __init__(self, name: str, feature_dim: int, output: Output) -> None:
        super().__init__()
        self.projector, self.dim = mlp(feature_dim, output.projector)
        self.predictor, predicted_dim = mlp(self.dim, output.predictor)
        if predicted_dim != self.dim:
            raise ContralexError(
                f"method.encoder.outputs.{name}.predictor ends in {predicted_dim} dimensions and its projector in "
                f"{self.dim}; they must be equal, because the one is compared with the other."
            )


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


def apply_to_rows(layers: nn.Module, vectors: Tensor) -> Tensor:
    """Layers on the last dimension of (B, D) or (B, P, D); a BatchNorm is told that each sample has P rows."""
    if vectors.dim() == 2:
        return layers(vectors)  # type: ignore[no-any-return]
    with rows_per_sample(vectors.shape[1]):
        return layers(vectors.flatten(0, 1)).unflatten(0, vectors.shape[:2])  # type: ignore[no-any-return]


def _to_unit_length(vectors: Tensor) -> Tensor:
    # In at least float32 even under autocast: in float16 the guard against a zero length is itself zero.
    return to_unit_length(at_least_float32(vectors))


def _pick(output: str, embedded: Mapping[int, Any]) -> dict[int, Tensor]:
    """The vectors of one output, of what :meth:`ImageEncoder.forward` returns."""
    found = {view: {IMAGE: each} if isinstance(each, Tensor) else each for view, each in embedded.items()}
    if not all(output in each for each in found.values()):
        raise ContralexError(
            f"A look-up asks for the output {output} of a view in pieces, which has {IMAGE} alone; let method.look_ups "
            "match other views."
        )
    return {view: each[output] for view, each in found.items()}


def _pick_located(output: str, embedded: Any) -> Tensor:
    """The coordinates of places, of what :meth:`ImageEncoder.forward` returns for a view."""
    if isinstance(embedded, Tensor) or output not in embedded:  # a recipe is refused before; made by hand, it is here
        raise ContralexError(
            f"A look-up reads {output}, the coordinates of a view's places, and the view has no boxes; set "
            "method.views.boxes to true, or let method.look_ups match other views."
        )
    found: Tensor = embedded[output]
    return found


_POSITIONS = "positions of masked patches"


def _select_places(places: Tensor, positions: Tensor | None) -> Tensor:
    """(B, M, F), the features of the places (B, P, F) at ``positions`` (B, M), where -1 is anyone; none without."""
    if positions is None:
        return places[:, :0]
    return places.gather(1, positions.clamp_min(0).unsqueeze(2).expand(-1, -1, places.shape[2]))


def _join(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _join_views(views: Sequence[ViewBatch]) -> ViewBatch:
    if len(views) == 1:
        return views[0]
    pixels = torch.cat([pixels_of(view) for view in views])
    masks = [company_of(view)["mask"] for view in views if "mask" in company_of(view)]
    return View(pixels, mask=torch.cat(masks)) if masks else pixels


def _join_masked(views: Sequence[ViewBatch]) -> Tensor | None:
    """(B, M) the positions of the masked patches of views that were joined; None where they have no masks."""
    positions = [company_of(view)["masked"] for view in views if "masked" in company_of(view)]
    return torch.cat(positions) if positions else None


def _sort_by_shape(views: Mapping[int, ViewBatch]) -> list[tuple[int, ViewBatch]]:
    kinds = list(dict.fromkeys(_kind(view) for view in views.values()))
    return sorted(views.items(), key=lambda item: kinds.index(_kind(item[1])))


def _kind(view: ViewBatch) -> tuple[torch.Size, bool]:
    """What views that go through the network in one batch have in common."""
    return pixels_of(view).shape, "mask" in company_of(view)


def _group_by_shape(views: Mapping[int, ViewBatch]) -> list[list[ViewBatch]]:
    groups: dict[tuple[torch.Size, bool], list[ViewBatch]] = {}
    for _, view in _sort_by_shape(views):
        groups.setdefault(_kind(view), []).append(view)
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
