"""What a part of each slot must be. A plugin implements one of these, and its spec names it by ``builds``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, overload

from torch import Tensor, nn

from contralex.errors import ContralexError
from contralex.lookup.dictionary import Dictionary
from contralex.lookup.names import IMAGE
from contralex.lookup.values import Match, Rows, Step, Targets
from contralex.lookup.view import View, ViewBatch, pixels_of

M = TypeVar("M", bound=nn.Module)


class Encoder(nn.Module, ABC):
    """How a view becomes a query.

    A key encoder may hold a copy of it (``copy.deepcopy``).

    The encoder's work is divided where the two sides of a look-up differ: ``forward`` gives the embedding that both may
    use, ``queries`` and ``keys`` complete it for their side (a predictor belongs in ``queries``).

    Called with one tensor, an encoder returns its :meth:`embedding`; with views by name, the embedding of each. Called
    with views by number, as the engine does, it returns what ``forward`` does.
    """

    dim: int
    """D, the number of dimensions of the vectors that are looked up."""
    view_names: Sequence[str] = ()
    """The names of views 0, 1, ..., where the encoder treats them in different ways."""
    takes_company: bool = False
    """Whether ``forward`` is given a view as a :class:`View` where its pixels have company, such as a mask. Where it is
    false it is given the pixels alone."""

    @overload
    def __call__(self, views: ViewBatch) -> Tensor: ...

    @overload
    def __call__(self, views: Mapping[int, ViewBatch]) -> dict[int, Tensor]: ...

    @overload
    def __call__(self, views: Mapping[str, ViewBatch]) -> dict[str, Tensor]: ...

    def __call__(self, views: Any) -> Any:
        if isinstance(views, Tensor):
            return self.embedding(views)
        if isinstance(views, View):
            return self.embedding(views if self.takes_company else views.pixels)
        if any(isinstance(name, str) for name in views):
            return self._embeddings(views)
        if not self.takes_company and any(isinstance(view, View) for view in views.values()):
            views = {name: pixels_of(view) for name, view in views.items()}
        return super().__call__(views)

    def _embeddings(self, views: Mapping[str, ViewBatch]) -> dict[str, Tensor]:
        names = list(self.view_names or views)
        unknown = [name for name in views if name not in names]
        if unknown:
            raise ContralexError(f"the encoder has no view {unknown[0]!r}; its views are {', '.join(names)}")
        keys = self.keys(self({names.index(name): view for name, view in views.items()}))
        return {name: _mean(keys[names.index(name)][0]) for name in views}

    @property
    def backbone(self) -> nn.Module | None:
        """What :func:`contralex.load_backbone` returns, images to features: the module that was given this name
        (``self.backbone = ...``), or None where there is none. A subclass that has one may state its type."""
        return self._modules.get("backbone")

    @property
    def has_same_sides(self) -> bool:
        """Whether :meth:`queries` returns what :meth:`keys` does, so that one may stand for the other."""
        own = type(self)
        return own.queries is Encoder.queries and own.queries_of is Encoder.queries_of

    @abstractmethod
    def forward(self, views: Mapping[int, Any]) -> dict[int, Tensor]:
        """Encode each view (B, ...) to its embedding (B, D), or (B, P, D) where a view has P positions.

        A view is a tensor; or a :class:`View`, where the encoder ``takes_company`` and the view has it.
        """

    @abstractmethod
    def features(self, view: Tensor) -> Tensor:
        """(B, F): the representation that is kept after training, before any projector."""

    @property
    def outputs(self) -> Mapping[str, int]:
        """The names of what may be looked up of a view, each with its dimensions D, the first of them the main one. An
        encoder with several overrides this, :meth:`queries_of` and :meth:`keys_of`."""
        return {IMAGE: self.dim}

    def encode_keys(self, views: Mapping[int, Any]) -> dict[int, Any]:
        """As :meth:`forward`, for a key encoder with weights of its own. An encoder overrides it whose key side reads a
        view in another way: a student sees a masked image, and its teacher the whole (iBOT, arXiv:2111.07832)."""
        return self(views)

    def embedding(self, view: Any) -> Tensor:
        """(B, D): the key vector of the view that :meth:`features` takes; the mean over its positions."""
        vectors, _ = self.keys(self({0: view}))[0]
        return _mean(vectors)

    def queries(self, embedded: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor | None]]:
        """For each view, query vectors (B, D) or (B, P, D), and the positions (P,) or (B, P) that they ask for."""
        return self.keys(embedded)

    def keys(self, embedded: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor | None]]:
        """For each view, key vectors, shaped as in :meth:`queries`. Positions ``None`` means 0, 1, ... P-1."""
        return {view: (vectors, None) for view, vectors in embedded.items()}

    def queries_of(self, output: str, embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
        """Query vectors and positions of one of the :attr:`outputs`, for the views of the look-ups that ask for it."""
        return self.queries(embedded)

    def keys_of(self, output: str, embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
        """Key vectors and positions of one of the :attr:`outputs`, for the views of the look-ups that ask for it."""
        return self.keys(embedded)


def _mean(vectors: Tensor) -> Tensor:
    """(B, D), of (B, D) or of the positions of each, (B, P, D)."""
    return vectors.mean(dim=1) if vectors.dim() == 3 else vectors


class KeyEncoder(nn.Module, ABC):
    """How a view becomes a key."""

    gradient: bool = False
    """Whether keys carry a gradient."""
    reads_queries: bool = False
    """Whether keys are made from the embeddings that the encoder has already computed for the queries."""
    passes_embeddings: bool = False
    """Whether keys are just the encoder's :meth:`~Encoder.keys` of those embeddings, with their gradient."""
    takes_whole_batch: bool = False
    """Whether :meth:`forward` needs the whole batch, because it mixes samples (shuffle-BN), even where the queries are
    encoded in micro-batches. It then divides its own work by ``step.micro_batch``. It is asked only of a key encoder
    whose keys carry no gradient and are not made from the queries' embeddings."""

    @abstractmethod
    def forward(
        self,
        encoder: Encoder,
        views: Mapping[int, Any],
        embedded: Mapping[int, Tensor],
        sample: Tensor,
        step: Step,
    ) -> Rows:
        """Encode the keys of this process's ``views``, view after view; the step gathers them afterwards.

        ``sample`` (B,) are the samples' indices. ``embedded`` holds the encoder's embedding of each view if
        ``reads_queries``, else of the query views alone.
        """

    def encode_outputs(
        self,
        encoder: Encoder,
        views: Mapping[int, Any],
        embedded: Mapping[int, Any],
        sample: Tensor,
        step: Step,
        wanted: Mapping[str, Sequence[int]],
    ) -> dict[str, Rows]:
        """As :meth:`forward`, where more than the encoder's main output is asked for: the keys of each output in
        ``wanted``, of these views."""
        raise ContralexError(
            f"method.key_encoder: {type(self).__name__} makes keys of the encoder's main output alone, and the "
            f"look-ups ask for {', '.join(wanted)}; use momentum, shared or frozen."
        )

    def side(self, module: M) -> M:
        """Return the copy of ``module`` that the key side uses: itself, or a twin that this key encoder keeps.

        Parts that are built later call it, before the first step; a twin follows its original in :meth:`update`.
        """
        return module

    def update(self, step: Step) -> None:
        """Called once after each optimiser step."""


class NegativeSource(nn.Module, ABC):
    """What else is in the dictionary.

    ``num_prototypes``: how many prototypes its entries are; 0 where they are no prototypes.
    """

    num_prototypes: int = 0
    reads: Sequence[str] = ()
    """The outputs of the encoder that it reads beside its look-up's own, of its look-up's views: their rows of this
    process are in ``step.queries`` and ``step.keys``."""
    compares_samples: bool = True
    """Whether it needs the keys of other samples, in :meth:`forward` or after the step. Keys of several positions are
    gathered from the processes only where a part of the look-up says so."""

    def require_prototypes(self, asked_by: str) -> int:
        """``num_prototypes``, for a part that keeps one number for each of them. ContralexError where there are none.
        ``asked_by``: the kind of that part."""
        if not self.num_prototypes:
            raise ContralexError(
                f"{asked_by} keeps one number for each prototype, and {type(self).__name__} has no prototypes; give "
                "method.negatives a kind that has them, or borrow them from a look-up that does"
            )
        return self.num_prototypes

    def prepare(self, step: Step) -> None:
        """Called once before each step encodes: before the first of its look-ups, where it makes several."""

    @abstractmethod
    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        """Make the dictionary for these queries of this process; ``keys`` are of every process and every key view.

        It writes nothing: state changes in :meth:`update`. Of a buffer it returns a copy, unless as ``stored``.
        """

    def update(self, keys: Rows, step: Step) -> None:
        """Called once after each optimiser step, with the keys of every process in the order of the batch."""

    def follow(self, queries: Rows, keys: Rows, step: Step) -> None:
        """Called once after each optimiser step, with the ``step`` that :meth:`forward` had: :meth:`update`, for state
        that follows the keys alone. ``queries``: this process's, detached."""
        self.update(keys, step)

    def resize_buffers(self, stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Bring its own buffers of a checkpoint, ``stored``, to the size that this source has now, for a run that is
        resumed with another size. Sharded buffers are complete. A buffer that it does not return must fit as it is."""
        return {}

    def sharded_buffers(self) -> Mapping[str, int]:
        """Its own buffers of which each process holds another part, with the number of rows of the complete table.

        Process r of W holds the r-th ceil(M/W) rows, with zeros after the last. Such buffers are left alone when the
        processes' states are made equal, and checkpoints hold the complete tables. All other state is the same on every
        process.
        """
        return {}


class TargetGenerator(nn.Module, ABC):
    """What each query should find."""

    reads: Sequence[str] = ()
    """The outputs of the encoder that it reads beside its look-up's own, see :attr:`NegativeSource.reads`."""
    compares_samples: bool = True
    """Whether it needs the keys of other samples, see :attr:`NegativeSource.compares_samples`."""

    @abstractmethod
    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        """Make the targets of these N queries, given the negative source's arguments and its result. It writes nothing.

        Several positives are ``weights`` that share 1 out among them. Statistics of ``keys`` are of every process.
        """

    def update(self, keys: Rows, step: Step) -> None:
        """Called once after each optimiser step, with the keys of every process in the order of the batch."""

    def follow(self, queries: Rows, keys: Rows, step: Step) -> None:
        """Called once after each optimiser step, with the ``step`` that :meth:`forward` had: :meth:`update`, for state
        that follows the keys alone. ``queries``: this process's, detached."""
        self.update(keys, step)


class Loss(nn.Module, ABC):
    """How wrong the look-up was."""

    reads: Sequence[str] = ()
    """The outputs of the encoder that it reads beside its look-up's own, see :attr:`NegativeSource.reads`."""
    compares_samples: bool = True
    """Whether it needs the keys of other samples, see :attr:`NegativeSource.compares_samples`."""

    @abstractmethod
    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        """The mean over this process's queries, a float32 scalar. Reduce statistics over all queries with
        :mod:`contralex.lookup.distributed`, with gradient, before a function is taken of them."""

    def follow(self, queries: Rows, keys: Rows, step: Step) -> None:
        """Called once after each optimiser step, as :meth:`NegativeSource.follow`."""


class PlacesBackbone(ABC):
    """What a backbone's module is, too, if it gives the places of an image: its feature map, or its patches' tokens.

    It is a second base of such a module, ``class Mine(nn.Module, PlacesBackbone)``, which stays one from images
    (B, C, H, W) to features (B, F).
    """

    __slots__ = ()  # a module that is made can still be given it, see contralex.kinds.backbones.places

    @abstractmethod
    def encode_places(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The features (B, F), as ``forward`` gives them, and those of the places (B, P, F), row by row of the
        :meth:`grid`, from one pass of images (B, C, H, W).

        ``mask`` (B, P): whether a place is hidden from the network. ContralexError where the network cannot hide any.
        """

    @abstractmethod
    def grid(self, images: Tensor) -> tuple[int, int]:
        """The rows and the columns of the places of images (B, C, H, W)."""


class Backbone(NamedTuple):
    """A network without its classifier, which turns an image into features.

    >>> import contralex, torch
    >>> contralex.Backbone(torch.nn.Flatten(), dim=3 * 8 * 8).dim
    192
    """

    module: nn.Module
    """From images (B, C, H, W) to features (B, F)."""
    dim: int
    """F, the number of features."""
