"""The values that flow through a step: rows and targets; dictionaries are in :mod:`contralex.lookup.dictionary`."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from contralex.lookup import distributed
from contralex.lookup.clock import Clock
from contralex.lookup.weights import DenseWeights, TiledWeights

_Form = TypeVar("_Form", Tensor, TiledWeights)


@dataclass(frozen=True)
class Rows:
    """Encoded vectors, each with three tags that say what it stands for.

    With these tags "the positive of this query" is one question for an image, a patch and a caption.
    """

    vectors: Tensor
    """(R, D)"""
    sample: Tensor
    """(R,) the index of the sample in the data set, or -1 for none."""
    view: Tensor
    """(R,) the number of the view of that sample."""
    position: Tensor
    """(R,) the position inside the view: a patch, a time step. It is 0 where a view is one vector."""

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def from_view(cls, vectors: Tensor, sample: Tensor, view: int, positions: Tensor | None = None) -> Rows:
        """Make the B or B·P rows of one view.

        ``vectors`` is (B, D), or (B, P, D) with ``positions`` (P,), or (B, P) where each sample has positions of its
        own (MAE hides other patches of each). Without ``positions`` they are 0, 1, ... P-1.
        """
        if vectors.dim() == 2:
            vectors = vectors.unsqueeze(1)
        batch, per_sample, _ = vectors.shape
        if positions is None:
            positions = torch.arange(per_sample, device=vectors.device)
        return cls(
            vectors.flatten(0, 1),
            sample.repeat_interleave(per_sample),
            torch.full((batch * per_sample,), view, device=vectors.device, dtype=torch.long),
            positions.to(vectors.device).expand(batch, per_sample).flatten(),
        )

    @classmethod
    def from_views(cls, encoded: Mapping[int, tuple[Tensor, Tensor | None]], sample: Tensor) -> Rows:
        """Rows of several views, view after view: vectors and positions as :meth:`Encoder.keys` returns them."""
        return cls.cat([cls.from_view(vectors, sample, view, at) for view, (vectors, at) in encoded.items()])

    @classmethod
    def cat(cls, parts: Sequence[Rows]) -> Rows:
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in _ROW_FIELDS))

    @classmethod
    def join(cls, parts: Sequence[Rows]) -> Rows:
        """Rows of a batch that was encoded in parts: view after view, and in each view part after part."""
        views = torch.unique_consecutive(parts[0].view).tolist()
        return cls.cat([part.select_view(view) for view in views for part in parts])

    def select_view(self, view: int) -> Rows:
        return self[self.view == view]

    def __getitem__(self, which: Tensor) -> Rows:
        return Rows(*(getattr(self, name)[which] for name in _ROW_FIELDS))

    def detach(self) -> Rows:
        return replace(self, vectors=self.vectors.detach())

    def gather(self, *, gradient: bool) -> Rows:
        """The rows of every process in the order that one process would have: view after view, and in each view rank
        after rank. With ``gradient``, backward returns the gradient of the vectors to their process. A collective."""
        gathered = distributed.gather(self.vectors, gradient=gradient)
        everyone = Rows(gathered, *(distributed.gather(getattr(self, name)) for name in _ROW_FIELDS[1:]))
        views = torch.unique_consecutive(self.view).tolist()
        if distributed.world() == 1 or len(views) == 1:
            return everyone
        return everyone[torch.cat([(everyone.view == view).nonzero().flatten() for view in views])]

    def select_matching(self, queries: Rows, match: Match) -> Rows:
        """The key of each query, as N rows in the order of the queries: the row of view ``match.key`` with the query's
        sample and position. RuntimeError where a query has none."""
        keys = self.select_view(match.key)
        return keys[queries.index_in(keys)]

    def index_in(self, others: Rows, *, same_view: bool = False) -> Tensor:
        """(R,) the index in ``others`` of the row of the same sample and position. RuntimeError where it is absent."""
        index = self.find_in(others, same_view=same_view)
        if bool((index < 0).any()):
            raise RuntimeError("a query has no partner among the keys: it asks for a sample or position that none has")
        return index

    def find_in(self, others: Rows, *, same_view: bool) -> Tensor:
        """(R,) as :meth:`index_in`, but a number below 0 where a row is absent, as ``str.find`` beside ``str.index``.

        As an index, that number would be one of the last rows: prefer :meth:`index_in` and :meth:`select_matching`.
        """
        if not len(others):
            return torch.full_like(self.sample, -1)
        mine, theirs = _tags(self, same_view), _tags(others, same_view)
        base = torch.stack([tags.max(dim=0).values for tags in (mine, theirs)]).max(dim=0).values + 1
        mine_key, their_key = _pack(mine, base), _pack(theirs, base)
        order = torch.argsort(their_key, stable=True)
        candidate = order[torch.searchsorted(their_key[order], mine_key).clamp(max=len(order) - 1)]
        return torch.where(their_key[candidate] == mine_key, candidate, torch.full_like(candidate, -1))


_ROW_FIELDS = ("vectors", "sample", "view", "position")


def _tags(rows: Rows, with_view: bool) -> Tensor:
    view = rows.view if with_view else torch.zeros_like(rows.view)
    return torch.stack([rows.sample, view, rows.position], dim=1)


def _pack(tags: Tensor, base: Tensor) -> Tensor:
    return (tags[:, 0] * base[1] + tags[:, 1]) * base[2] + tags[:, 2]


class Targets:
    """What each query should find: one entry of the dictionary, a distribution over its entries, or a vector.

    ``weights`` are a tensor, or made tile by tile where all of them would be too many.

    They hold at least one of the three. Reading what they do not hold raises a RuntimeError that says so; ask
    ``has_index``, ``has_weights`` or ``has_vectors`` where several may come.
    """

    def __init__(
        self,
        index: Tensor | None = None,
        weights: Tensor | TiledWeights | None = None,
        vectors: Tensor | None = None,
    ) -> None:
        if index is None and weights is None and vectors is None:
            raise ValueError("targets hold nothing: give Targets an index, weights or vectors")
        self._index = index
        self._weights = DenseWeights(weights) if isinstance(weights, Tensor) else weights
        self._vectors = vectors

    @property
    def index(self) -> Tensor:
        """(N,) the entry of the dictionary that each query should find."""
        return self._read(self._index, "index")

    @property
    def has_index(self) -> bool:
        return self._index is not None

    @property
    def weights(self) -> Tensor:
        """(N, P+M) a distribution over the entries of the dictionary for each query."""
        return self.tiled_weights.dense()

    @property
    def tiled_weights(self) -> TiledWeights:
        """``weights`` tile by tile, for a dictionary's :meth:`~contralex.plugin.Dictionary.soft_cross_entropy`."""
        return self._read(self._weights, "weights")

    @property
    def has_weights(self) -> bool:
        return self._weights is not None

    @property
    def vectors(self) -> Tensor:
        """(N, D) the vector that each query should predict."""
        return self._read(self._vectors, "vectors")

    @property
    def has_vectors(self) -> bool:
        return self._vectors is not None

    def tensors(self) -> dict[str, Tensor]:
        """What these targets hold, by name."""
        weights = None if self._weights is None else self._weights.dense()
        forms = {"index": self._index, "weights": weights, "vectors": self._vectors}
        return {name: tensor for name, tensor in forms.items() if tensor is not None}

    def _read(self, form: _Form | None, name: str) -> _Form:
        if form is None:
            held = " and ".join(self.tensors())
            raise RuntimeError(
                f"targets.{name} is absent: these targets hold {held}; use a loss that reads {held}, or targets that "
                f"give {name}"
            )
        return form


@dataclass(frozen=True)
class Match:
    """Which query view looks up which key view.

    >>> import contralex
    >>> both_ways = [contralex.Match(query=0, key=1), contralex.Match(query=1, key=0)]
    """

    query: int
    key: int


@dataclass
class Step:
    """The moment of training at which a step happens. Randomness is a function of it and of nothing else.

    >>> import contralex
    >>> step = contralex.Step(contralex.Clock(step=0, total=10, per_epoch=2), seed=0, batch=32)
    """

    clock: Clock
    seed: int
    """The seed of the run."""
    batch: int
    """The global batch size, in samples."""
    cache: dict[Any, Any] = field(default_factory=dict)
    """It lives as long as the step, its ``update`` included: a target generator keeps here what several matches share,
    or what ``update`` needs."""
    micro_batch: int | None = None
    """The most samples that each process encodes at once; None: its whole part of the batch."""

    def generator(self, purpose: int | str) -> torch.Generator:
        """A new random generator on the CPU that every process seeds alike, one for each purpose and step. Two parts
        that name the same purpose draw the same, so a plugin names its own: ``step.generator("contralex-mine")``."""
        number = zlib.crc32(purpose.encode()) if isinstance(purpose, str) else purpose
        mixed = (self.seed * 1_000_003 + self.clock.step) * 1_000_003 + number
        return torch.Generator().manual_seed(mixed % (2**63 - 1))


@dataclass(frozen=True)
class StepResult:
    """What a step of :class:`~contralex.lookup.step.LookUp` returns."""

    loss: Tensor
    """The mean loss over this process's queries, a scalar with gradient."""
    accuracy: Tensor
    """The fraction of this process's queries whose best entry is the one that they should find (top-1), a scalar."""
    keys: Rows
    """The keys of every process, which :meth:`LookUp.update` takes."""
    entries: int
    """The number of entries that a query was compared with; 0 where there is no dictionary."""
