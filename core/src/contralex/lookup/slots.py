"""What a part of each slot must be. A plugin implements one of these, and its spec names it by ``builds``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from torch import Tensor, nn

from contralex.lookup.values import Dictionary, Match, Rows, Step, Targets

M = TypeVar("M", bound=nn.Module)


class Encoder(nn.Module, ABC):
    """How a view becomes a query. ``dim`` is the width of the vectors that are looked up.

    A key encoder may hold a copy of it (``copy.deepcopy``).

    The encoder's work is cut where the two sides of a look-up part: ``forward`` gives the embedding that
    both may use, ``queries`` and ``keys`` finish it for their side (a predictor belongs in ``queries``).
    """

    dim: int

    @property
    def backbone(self) -> nn.Module | None:
        """What :func:`contralex.load_backbone` returns, images to features: the module that was given this name
        (``self.backbone = ...``), or None where there is none. A subclass that has one may state its type."""
        return self._modules.get("backbone")

    @abstractmethod
    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Each view (B, ...) to its embedding (B, D) or, where a view has P places, (B, P, D)."""

    @abstractmethod
    def features(self, view: Tensor) -> Tensor:
        """(B, F): the representation that is kept after training, before any projector."""

    def embedding(self, view: Tensor) -> Tensor:
        """(B, D): the key vector of what :meth:`features` takes; the mean over the places where there are several."""
        vectors, _ = self.keys(self({0: view}))[0]
        return vectors.mean(dim=1) if vectors.dim() == 3 else vectors

    def queries(self, embedded: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor | None]]:
        """For each view, query vectors (B, D) or (B, P, D) with the positions, (P,) or (B, P), of what they ask for."""
        return self.keys(embedded)

    def keys(self, embedded: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor | None]]:
        """For each view, key vectors, shaped as in :meth:`queries`. Positions ``None`` means 0, 1, ... P-1."""
        return {view: (vectors, None) for view, vectors in embedded.items()}


class KeyEncoder(nn.Module, ABC):
    """How a view becomes a key.

    ``gradient`` says whether keys carry one; ``reads_queries`` whether keys are made from the embeddings that
    the encoder has already computed for the queries.
    """

    gradient: bool = False
    reads_queries: bool = False

    @abstractmethod
    def forward(
        self,
        encoder: Encoder,
        views: Mapping[int, Tensor],
        embedded: Mapping[int, Tensor],
        sample: Tensor,
        step: Step,
    ) -> Rows:
        """The keys of this process's ``views``, view after view; they are gathered afterwards.

        ``embedded``: what ``encoder`` made of each view, if ``reads_queries``, else of the query views alone.
        """

    def side(self, module: M) -> M:
        """The copy of ``module`` that the key side uses: itself, or a twin that this key encoder keeps.

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

    def prepare(self, step: Step) -> None:
        """Called once before each step encodes."""

    @abstractmethod
    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        """The dictionary for these queries of this process. ``keys`` are those of every process and every key view.

        It writes nothing: state changes in :meth:`update`. What it returns of a buffer is a copy.
        """

    def update(self, keys: Rows, step: Step) -> None:
        """Called once after each optimiser step, with the keys of every process in the order of the batch."""

    def resized(self, found: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Its own buffers from a checkpoint, where a resumed run may make them in another size: ``found`` in the size
        that it has now, each whole. What it does not return must fit as it is."""
        return {}

    def sharded_buffers(self) -> Mapping[str, int]:
        """Its own buffers of which each process holds another part, and how many rows the whole of each has.

        Process r of W holds the r-th ceil(M/W) rows, zeros after the last. Such buffers are left alone when processes
        are made alike, and checkpoints hold them whole. All other state is the same on every process.
        """
        return {}


class TargetGenerator(nn.Module, ABC):
    """What the look-up should return."""

    @abstractmethod
    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        """The targets of these queries, given what the negative source got and returned. It writes nothing.

        Several positives are ``weights`` that share 1 out among them. Statistics of ``keys`` are of every process.
        """

    def update(self, keys: Rows, step: Step) -> None:
        """Called once after each optimiser step, with the keys of every process in the order of the batch."""


class Loss(nn.Module, ABC):
    """How wrong the look-up was: the mean over this process's queries, a scalar."""

    @abstractmethod
    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        """One float32 number. Statistics over all queries are reduced by :mod:`contralex.lookup.distributed`, with
        gradient, before a function is taken of them."""


class Backbone(NamedTuple):
    """What turns an image into features, without a classifier: ``module`` from images (B, C, H, W) to features (B, F),
    and ``dim``, which is F."""

    module: nn.Module
    dim: int
