"""The dictionary that a query is looked up in, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup import kept_indices
from contralex.lookup.answers import Answers
from contralex.lookup.entries import Entries, sum_exponentials
from contralex.lookup.host_copies import read_on_host
from contralex.lookup.own_entries import OwnEntries, read_own
from contralex.lookup.precision import at_least_float32
from contralex.lookup.shards import Shards
from contralex.lookup.shared_answers import SharedAnswers
from contralex.lookup.twins import TwinAnswer, Twins
from contralex.lookup.values import Match, Rows
from contralex.lookup.weights import DenseWeights, TiledWeights

_Value = TypeVar("_Value")


class Dictionary:
    """The entries that a query is compared with: first those that only this query sees, then those that all share.

    A source gives the parts that it has. Reading a part that is absent raises a RuntimeError that says so; ask
    ``has_own``, ``has_shared``, ... where both may be. :meth:`replace` makes another dictionary of one.

    ``hidden`` (N,): one entry that each query must not find, below 0 for none; ``mask`` (N, P+M) says the same of any
    number of entries. ``stored`` (M, D): shared entries in a table that is written after the look-up, in any floating
    dtype. They are read where they are, and copied for whoever asks for ``shared``.

    :meth:`scores` gives all scores at once. The other questions (:meth:`cross_entropy`, :meth:`find_best`, ...) are
    answered tile by tile, so that memory grows with N+M and not with N·M. A subclass that has scores of its own has
    them answered from those.
    """

    def __init__(
        self,
        own: OwnEntries | None = None,
        shared: Tensor | None = None,
        rows: Rows | None = None,
        mask: Tensor | None = None,
        key_shared: Tensor | None = None,
        dataset_size: int | None = None,
        shards: Shards | None = None,
        hidden: Tensor | None = None,
        stored: Tensor | None = None,
    ) -> None:
        self._own = own
        self._shared = shared
        self._rows = rows
        self._mask = mask
        self._key_shared = key_shared
        self._dataset_size = dataset_size
        self._shards = shards
        self._hidden = hidden
        self._stored = stored
        self._answers = Answers()
        self._twins: tuple[Tensor, Twins] | None = None
        self._cache: dict[Any, Any] | None = None

    @property
    def own(self) -> Tensor:
        """(N, P, D) the entries that one query alone sees: its positive under MoCo, its positive and its negatives from
        memory under InstDisc. Where a source gives a positive of its own, that is entry 0."""
        own = self._present_own()
        return own if isinstance(own, Tensor) else own.read()

    def read_own(self, column: int) -> Tensor:
        """(N, D) one of each query's own entries. The others are not read, where they are still in a table."""
        return read_own(self._present_own(), columns=slice(column, column + 1)).squeeze(1)

    def _present_own(self) -> OwnEntries:
        if self._own is None:
            raise _say_absent("own", "entries that one query alone sees")
        return self._own

    @property
    def has_own(self) -> bool:
        return self._own is not None

    @property
    def shared(self) -> Tensor:
        """(M, D) the entries that all queries share: a queue, the batch, prototypes. Not where they are ``shards``."""
        if self._shared is None and self._stored is not None:  # a copy, because the table is written after the look-up
            self._shared = at_least_float32(self._stored, copy=True)
        return _present(self._shared, "shared", "entries that all queries share and this process holds")

    @property
    def has_shared(self) -> bool:
        return self._shared is not None or self._stored is not None

    @property
    def rows(self) -> Rows:
        """(M,) the tags of the shared entries, where they stand for samples."""
        return _present(self._rows, "rows", "entries that stand for samples")

    @property
    def has_rows(self) -> bool:
        return self._rows is not None

    @property
    def mask(self) -> Tensor:
        """(N, P+M) False where a query must not find an entry: a SimCLR row is never its own key."""
        if self._mask is None and self._hidden is not None:
            return torch.arange(self.size, device=self._hidden.device) != self._hidden.unsqueeze(1)
        return _present(self._mask, "mask", "entries that are hidden from a query")

    @property
    def has_mask(self) -> bool:
        return self._mask is not None or self._hidden is not None

    @property
    def hidden(self) -> Tensor:
        """(N,) one entry that each query must not find, below 0 for none. It is in ``mask`` as well."""
        return _present(self._hidden, "hidden", "one entry that is hidden from each query")

    @property
    def has_hidden(self) -> bool:
        return self._hidden is not None

    @property
    def key_shared(self) -> Tensor:
        """(M, D) the shared entries as the key side sees them, where that is another copy: prototypes under a momentum
        key encoder."""
        return _present(self._key_shared, "key_shared", "prototypes of the key side")

    @property
    def has_key_shared(self) -> bool:
        return self._key_shared is not None

    @property
    def dataset_size(self) -> int:
        """How many samples the negatives were drawn from, which noise-contrastive estimation needs."""
        return _present(self._dataset_size, "dataset_size", "negatives that are drawn from all samples")

    @property
    def has_dataset_size(self) -> bool:
        return self._dataset_size is not None

    @property
    def shards(self) -> Shards:
        """The shared entries where no process holds them all: they can be scored, and not read."""
        return _present(self._shards, "shards", "entries that are divided among the processes")

    @property
    def has_shards(self) -> bool:
        return self._shards is not None

    @property
    def size(self) -> int:
        """P+M, the number of entries that a query is compared with."""
        size = 0
        if self._own is not None:
            size += self._own.shape[1]
        table = self._table()
        if table is not None:
            size += len(table)
        if self._shards is not None:
            size += self._shards.total
        return size

    def replace(self, **parts: Any) -> Self:
        """The same dictionary with other ``parts``, which are named as in the constructor; None leaves one out."""
        kept = {
            name.lstrip("_"): part for name, part in vars(self).items() if name not in ("_answers", "_twins", "_cache")
        }
        for name, other in (("shared", "stored"), ("stored", "shared")):  # the one may be a copy of the other
            if name in parts:
                kept[other] = None
        return type(self)(**kept | parts)

    def positives(self, queries: Rows, match: Match) -> Tensor:
        """(N,) the entry that stands for each query's own sample, seen in the matched view, at the same position."""
        device = queries.vectors.device
        if self.has_own:  # by convention it is entry 0
            return kept_indices.make_constant(0, len(queries), device)
        known = queries.find_slice_in(self.rows, view=match.key)
        if known is not None:
            return kept_indices.make_range(known.start, known.stop, device)
        return queries.with_view(match.key).index_in(self.rows, same_view=True)

    def scores(self, queries: Tensor) -> Tensor:
        """(N, P+M) inner products of the queries (N, D) with every entry, in at least float32; -inf where
        masked.

        A collective where there are ``shards``: every process calls it, with as many queries.
        """
        vectors = at_least_float32(queries)
        parts = []
        if self._own is not None:
            parts.append(torch.einsum("nd,npd->np", vectors, self.own.to(vectors.dtype)))
        if self.has_shared:
            parts.append(vectors @ self.shared.to(vectors.dtype).T)
        if self._shards is not None:
            parts.append(self._shards.scores(vectors))
        scores = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        if self.has_mask:
            scores = scores.masked_fill(~self.mask, float("-inf"))
        self._answers.remember_scores(queries, scores)
        return scores

    def cross_entropy(self, queries: Tensor, index: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """(N,) −log softmax(scores/temperature) of each query's entry ``index`` (N,).

        It keeps its digits where the softmax is nearly 1. A learned ``temperature`` is a tensor, and gets its gradient.
        """
        if self._reads_scores():
            return F.cross_entropy(self._temper_scores(queries, temperature), index, reduction="none")
        answer = self._ask_twins(queries, index, temperature)
        if answer is not None:
            self._answers.remember_lead(queries, index, answer.lead, has_ties=answer.has_ties)
            return answer.loss
        if isinstance(temperature, Tensor):
            loss, lead = self._entries().cross_entropy(_divide(queries, temperature), index, 1.0)
        else:
            loss, lead = self._entries().cross_entropy(at_least_float32(queries), index, temperature)
        self._answers.remember_lead(queries, index, lead)
        return loss

    def soft_cross_entropy(
        self,
        queries: Tensor,
        weights: Tensor | TiledWeights,
        temperature: float | Tensor = 1.0,
        groups: int = 1,
    ) -> Tensor:
        """(N,) −Σ w·log softmax(scores/temperature), ``weights`` (N, P+M) being those of ``targets.weights`` or, where
        they are made tile by tile, of ``targets.tiled_weights``. An entry of weight 0 may be hidden: 0·log 0 is 0.
        ``groups``: the entries are as many groups of equal size, one after another, each with a softmax of its own."""
        if self.size % groups:
            raise ValueError(f"{self.size} entries do not divide into {groups} groups of equal size")
        tiled = DenseWeights(weights) if isinstance(weights, Tensor) else weights
        if self._needs_all_scores(tiled):
            scores = self._temper_scores(queries, temperature)
            in_groups = (each.unflatten(1, (groups, -1)) for each in (scores, tiled.dense().to(scores)))
            return _cross_entropy(*in_groups)
        shared = self._shared_answers()
        if shared is not None and isinstance(tiled, DenseWeights) and groups == 1:
            loss, best = shared.soft_cross_entropy(queries, tiled.weights, temperature)
        else:
            loss, best = self._entries().soft_cross_entropy(_divide(queries, temperature), tiled, groups)
        self._answers.remember_best(queries, best)
        return loss

    def log_sum_exp(
        self,
        queries: Tensor,
        temperature: float | Tensor = 1.0,
        weights: Tensor | TiledWeights | None = None,
    ) -> Tensor:
        """(N,) log Σ w·exp(scores/temperature). Without ``weights`` (N, P+M) all are 1; where all are 0, it is -inf."""
        tiled = DenseWeights(weights) if isinstance(weights, Tensor) else weights
        if self._reads_scores() if tiled is None else self._needs_all_scores(tiled):
            scores = self._temper_scores(queries, temperature)
            return sum_exponentials(scores if tiled is None else scores + tiled.dense().to(scores).log(), dim=1)
        return self._entries().log_sum_exp(_divide(queries, temperature), tiled)

    def sigmoid_cross_entropy(
        self, queries: Tensor, index: Tensor, temperature: float | Tensor = 1.0, bias: float | Tensor = 0.0
    ) -> Tensor:
        """(N,) −Σ log σ(±(scores/temperature + bias)), with + for the entry ``index`` (N,) and − for each other that is
        not hidden (SigLIP, Eq. 3)."""
        is_fixed = not isinstance(bias, Tensor) or not bias.requires_grad
        if is_fixed and not self._reads_scores() and self._entries().has_only_fixed_own:
            divided = _divide(queries, temperature)
            shift = bias.detach() if isinstance(bias, Tensor) else divided.new_tensor(bias)
            loss, lead = self._entries().own_sigmoid_cross_entropy(divided, index, shift)
            self._answers.remember_lead(queries, index, lead)
            return loss
        if self._needs_all_scores(None):
            logits = self._temper_scores(queries, temperature)
            absent = logits == float("-inf")
            logits = logits.masked_fill(absent, 0.0) + bias
            own = torch.arange(logits.shape[1], device=index.device) == index.unsqueeze(1)
            return -F.logsigmoid(torch.where(own, logits, -logits)).masked_fill(absent, 0.0).sum(dim=1)
        # A dimension more, in which every query has the bias and every entry has 1.
        divided, table = _divide(queries, temperature), self._entries().only_table()
        biased = torch.cat([divided, torch.zeros_like(divided[:, :1]) + bias], dim=1)
        entries = replace(self._entries(), table=torch.cat([table, torch.ones_like(table[:, :1])], dim=1))
        loss, lead = entries.sigmoid_cross_entropy(biased, index)
        self._answers.remember_lead(queries, index, lead)
        return loss

    def find_best(self, queries: Tensor) -> Tensor:
        """(N,) the entry with the largest score, the first where several have it."""
        known = self._answers.best(queries)
        if known is None:
            if self._reads_scores():
                return self.scores(queries).argmax(dim=1)
            known = self._entries().find_best(at_least_float32(queries.detach()))
            self._answers.remember_best(queries, known)
        return known

    def finds(self, queries: Tensor, index: Tensor) -> Tensor:
        """(N,) whether the entry ``index`` (N,) has the largest score: of several that have it, the first counts. A
        loss that has asked for these queries' scores, or for :meth:`cross_entropy`, has paid for the answer."""
        lead = self._answers.lead(queries, index)
        if lead is None:
            return self.find_best(queries) == index
        if kept_indices.find_constant(index) == 0:  # of several that have the largest score, it is the first
            return lead >= 0
        found = lead > 0
        # Of another device the question would wait.
        can_ask = self._answers.may_have_ties and lead.device.type == "cpu"
        if can_ask and read_on_host((lead == 0).any()):
            found = torch.where(lead == 0, self.find_best(queries) == index, found)
        return found

    def once(self, name: str, make: Callable[[], _Value]) -> _Value:
        """What ``make`` returns: a tensor with a gradient, such as a learned temperature, that several matches of a
        look-up may share. Two views that look each other up with one and the same tensor are looked up together."""
        made: _Value = make() if self._twins is None else self._twins[1].once(name, make)
        return made

    def meet_twins(self, queries: Tensor, twins: Twins) -> None:
        """Learn that the shared entries may be the queries of the step, all of them or those of a view, of which
        ``queries`` (N, D) are some."""
        self._twins = (queries, twins)

    def share_answers(self, cache: dict[Any, Any]) -> None:
        """Keep in a step's ``cache`` what the dictionaries of other matches may ask as well, whose shared entries are
        one and the same tensor; and find it there."""
        self._cache = cache

    def _ask_twins(self, queries: Tensor, index: Tensor, temperature: float | Tensor) -> TwinAnswer | None:
        if self._twins is None or self._twins[0] is not queries or self._shared is None:
            return None
        if self._own is not None or self._mask is not None or self._shards is not None:
            return None
        return self._twins[1].cross_entropy(queries, self._shared, index, self._hidden, temperature)

    def _shared_answers(self) -> SharedAnswers | None:
        """None where there are none, or the entries are not all that matters."""
        if self._cache is None or self._shared is None or self.has_mask:
            return None
        return SharedAnswers(self._cache, self._shared)

    def _entries(self) -> Entries:
        return Entries(self._own, self._table(), self._shards, self._hidden, self._mask)

    def _table(self) -> Tensor | None:
        """(M, D) the shared entries, where they are."""
        return self._shared if self._stored is None else self._stored

    def _needs_all_scores(self, weights: TiledWeights | None) -> bool:
        """Whether a question about weights, or about sums that are not of exponentials, has no answer in tiles."""
        learned = isinstance(weights, DenseWeights) and weights.weights.requires_grad
        return self._reads_scores() or learned or not self._entries().has_only_table

    def _temper_scores(self, queries: Tensor, temperature: float | Tensor) -> Tensor:
        """(N, P+M) scores/temperature. What is hidden stays -inf, and is kept from the division: ∞·0 in the gradient
        of a learned temperature is NaN."""
        scores = self.scores(queries)
        if not isinstance(temperature, Tensor):
            return scores / temperature
        absent = scores == float("-inf")
        return (scores.masked_fill(absent, 0.0) / temperature).masked_fill(absent, float("-inf"))

    def _reads_scores(self) -> bool:
        """Whether all answers are from :meth:`scores`: a subclass has its own, or there are shards beside a table or a
        mask, which no tile has together."""
        has_other = self._mask is not None or self._table() is not None
        return type(self).scores is not Dictionary.scores or (self._shards is not None and has_other)


def _divide(queries: Tensor, temperature: float | Tensor) -> Tensor:
    return at_least_float32(queries) / temperature


def _cross_entropy(scores: Tensor, weights: Tensor) -> Tensor:
    """(N,) −Σ w·log softmax of scores (N, G, M), over M. Where a query sees nothing and is to find nothing it is 0, and
    so is its gradient: that of log softmax would be NaN."""
    unwanted = weights == 0
    blind = ((scores == float("-inf")) & unwanted).all(dim=2, keepdim=True)
    log_p = F.log_softmax(scores.masked_fill(blind, 0.0), dim=2).masked_fill(unwanted, 0.0)
    return -(weights * log_p).sum(dim=(1, 2))


def _present(part: _Value | None, name: str, meaning: str) -> _Value:
    if part is None:
        raise _say_absent(name, meaning)
    return part


def _say_absent(name: str, meaning: str) -> RuntimeError:
    return RuntimeError(
        f"dictionary.{name} is absent: this dictionary has no {meaning}; use a negative source that gives them"
    )
