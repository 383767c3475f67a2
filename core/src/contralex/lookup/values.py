"""The values that flow through a step: rows, dictionaries, targets."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from contralex.lookup import distributed
from contralex.lookup.clock import Clock
from contralex.lookup.shards import Shards


@dataclass(frozen=True)
class Rows:
    """Encoded vectors, each tagged with what it stands for.

    ``vectors`` (R, D); ``sample`` (R,) the index in the data set; ``view`` (R,) which view of the sample;
    ``position`` (R,) the place inside the view: a patch, a time step, and 0 where a view is one vector.
    With these tags "the positive of this query" is one question for an image, a patch and a caption.
    """

    vectors: Tensor
    sample: Tensor
    view: Tensor
    position: Tensor

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def of(cls, vectors: Tensor, sample: Tensor, view: int, positions: Tensor | None = None) -> Rows:
        """Rows of one view, from (B, D), or from (B, P, D) with ``positions`` (P,), or (B, P) where each sample has its
        own (MAE hides other patches of each)."""
        if vectors.dim() == 2:
            vectors = vectors.unsqueeze(1)
        batch, places, _ = vectors.shape
        if positions is None:
            positions = torch.arange(places, device=vectors.device)
        return cls(
            vectors.flatten(0, 1),
            sample.repeat_interleave(places),
            torch.full((batch * places,), view, device=vectors.device, dtype=torch.long),
            positions.to(vectors.device).expand(batch, places).flatten(),
        )

    @classmethod
    def cat(cls, parts: Sequence[Rows]) -> Rows:
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in _ROW_FIELDS))

    def of_view(self, view: int) -> Rows:
        return self[self.view == view]

    def __getitem__(self, which: Tensor) -> Rows:
        return Rows(*(getattr(self, name)[which] for name in _ROW_FIELDS))

    def detach(self) -> Rows:
        return replace(self, vectors=self.vectors.detach())

    def gather(self, *, gradient: bool) -> Rows:
        """The rows of every process in the order that one process would have: view after view, and in each view rank
        after rank. ``gradient`` says whether vectors carry one back."""
        gathered = distributed.gather(self.vectors, gradient=gradient)
        everyone = Rows(gathered, *(distributed.gather(getattr(self, name)) for name in _ROW_FIELDS[1:]))
        views = torch.unique_consecutive(self.view).tolist()
        if distributed.world() == 1 or len(views) == 1:
            return everyone
        return everyone[torch.cat([(everyone.view == view).nonzero().flatten() for view in views])]

    def matching(self, queries: Rows, match: Match) -> Rows:
        """The key of each query, in the order of the N queries: of view ``match.key``, with the query's sample and
        position. RuntimeError where a query has none."""
        keys = self.of_view(match.key)
        return keys[queries.partners_in(keys)]

    def partners_in(self, others: Rows, *, same_view: bool = False) -> Tensor:
        """(R,) as :meth:`places_in`, where every row has a partner. RuntimeError where one has none."""
        place = self.places_in(others, same_view=same_view)
        if bool((place < 0).any()):
            raise RuntimeError("a query has no partner among the keys: it asks for a sample or position that none has")
        return place

    def places_in(self, others: Rows, *, same_view: bool) -> Tensor:
        """(R,) where in ``others`` the row with the same sample and position stands; below 0 where it is absent.

        As an index that would be one of the last rows: ask :meth:`partners_in` or :meth:`matching`, which raise.
        """
        if not len(others):
            return torch.full_like(self.sample, -1)
        mine, theirs = _tags(self, same_view), _tags(others, same_view)
        base = torch.stack([tags.max(dim=0).values for tags in (mine, theirs)]).max(dim=0).values + 1
        mine_key, their_key = _pack(mine, base), _pack(theirs, base)
        order = torch.argsort(their_key, stable=True)
        found = torch.searchsorted(their_key[order], mine_key).clamp(max=len(order) - 1)
        place = order[found]
        return torch.where(their_key[place] == mine_key, place, torch.full_like(place, -1))


_ROW_FIELDS = ("vectors", "sample", "view", "position")


def _tags(rows: Rows, with_view: bool) -> Tensor:
    view = rows.view if with_view else torch.zeros_like(rows.view)
    return torch.stack([rows.sample, view, rows.position], dim=1)


def _pack(tags: Tensor, base: Tensor) -> Tensor:
    return (tags[:, 0] * base[1] + tags[:, 1]) * base[2] + tags[:, 2]


@dataclass(frozen=True)
class Dictionary:
    """What can be found: entries that only this query sees, then entries that all queries share.

    ``own`` (N, P, D): its positive under MoCo, its positive and its drawn memory rows under InstDisc; where
    a source gives a positive of its own, that is entry 0. ``shared`` (M, D): a queue, the batch, prototypes.
    ``rows`` tags the shared entries, where they stand for samples. ``mask`` (N, P+M) is False where an entry
    may not be found (a SimCLR row is never its own key). ``key_shared`` (M, D): the shared entries as the key
    side sees them, where that is another copy (prototypes under a momentum key encoder). ``population``: how
    many rows the drawn entries were drawn from, which noise-contrastive estimation needs. ``span``: the entries are
    compared with the queries' numbers from the first of these places up to the second; None: with all. ``shards``: the
    shared entries where no process holds them all; ``shared`` is None then, and they can be scored but not read.
    """

    own: Tensor | None = None
    shared: Tensor | None = None
    rows: Rows | None = None
    mask: Tensor | None = None
    key_shared: Tensor | None = None
    population: int | None = None
    span: tuple[int, int] | None = None
    shards: Shards | None = None

    @property
    def size(self) -> int:
        """P+M, the entries that a query is compared with."""
        own = 0 if self.own is None else self.own.shape[1]
        if self.shards is not None:
            return own + self.shards.total
        return own + (0 if self.shared is None else len(self.shared))

    def positives(self, queries: Rows, match: Match) -> Tensor:
        """(N,) the entry that stands for each query's own sample, seen in the matched view, at the same position."""
        if self.own is not None:  # by convention it is entry 0
            return torch.zeros(len(queries), dtype=torch.long, device=queries.vectors.device)
        assert self.rows is not None
        asked = replace(queries, view=torch.full_like(queries.view, match.key))
        return asked.partners_in(self.rows, same_view=True)

    def scores(self, queries: Tensor) -> Tensor:
        """(N, P+M) inner products of the queries (N, D) with every entry, in float32; -inf where masked.

        A collective where there are ``shards``: every process calls it, with as many queries.
        """
        queries = queries.float()
        if self.span is not None:
            queries = queries[:, self.span[0] : self.span[1]]
        parts = []
        if self.own is not None:
            parts.append(torch.einsum("nd,npd->np", queries, self.own.float()))
        if self.shared is not None:
            parts.append(queries @ self.shared.float().T)
        if self.shards is not None:
            parts.append(self.shards.scores(queries))
        scores = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        return scores if self.mask is None else scores.masked_fill(~self.mask, float("-inf"))


@dataclass(frozen=True)
class Targets:
    """What should be found: a place (N,) in the dictionary, a distribution (N, P+M) over it, or a vector (N, D)."""

    index: Tensor | None = None
    weights: Tensor | None = None
    vectors: Tensor | None = None


@dataclass(frozen=True)
class Match:
    """Which query view looks up which key view."""

    query: int
    key: int


@dataclass
class Step:
    """The moment of training that a step happens at. Randomness is a function of it and of nothing else.

    ``batch`` is the global batch size. ``cache`` lives as long as the step, its ``update`` included: a target generator
    keeps there what several matches share, or what ``update`` needs.
    """

    clock: Clock
    seed: int
    batch: int
    cache: dict[Any, Any] = field(default_factory=dict)

    def generator(self, purpose: int | str) -> torch.Generator:
        """A random generator that every process seeds alike, one for each purpose and step. Two parts that name the
        same purpose draw the same, so a plugin names its own: ``step.generator("contralex-mine")``."""
        number = zlib.crc32(purpose.encode()) if isinstance(purpose, str) else purpose
        mixed = (self.seed * 1_000_003 + self.clock.step) * 1_000_003 + number
        return torch.Generator().manual_seed(mixed % (2**63 - 1))


@dataclass(frozen=True)
class Found:
    """What a step returns: the mean loss over this process's queries, the share of them whose look-up found
    what it should (top-1), the keys of every process, which :meth:`LookUp.update` takes, and how many entries a query
    was compared with (0 where there is no dictionary)."""

    loss: Tensor
    accuracy: Tensor
    keys: Rows
    entries: int
