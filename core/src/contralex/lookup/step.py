"""The step: look each query up in a dictionary of keys.

Every method of contralex is this one step with other parts in its five slots. Nothing here knows a method, and no
plugin repeats what is here.

The convention on several processes: each process computes the mean loss over *its own* queries against keys from
*every* process. A gather whose backward sums over the processes, followed by the mean that DistributedDataParallel
takes, then gives exactly the gradient that one process would give for the batch of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from contralex.compat import keep_from_broadcasts
from contralex.lookup.dictionary import Dictionary
from contralex.lookup.micro_batches import encode_in_parts
from contralex.lookup.sharded_state import sharded_buffers
from contralex.lookup.slots import Encoder, KeyEncoder, Loss, NegativeSource, TargetGenerator
from contralex.lookup.twins import Twins
from contralex.lookup.values import Match, Rows, Step, StepResult, Targets
from contralex.lookup.view import ViewBatch


class LookUp(nn.Module):
    """A method: the five slots, and the one step that joins them.

    ``reduction``: ``mean`` or ``sum`` over the matches.

    >>> import contralex, torch
    >>> encoder = contralex.ImageEncoder(contralex.Backbone(torch.nn.Linear(192, 16), dim=16))
    >>> method = contralex.LookUp(
    ...     encoder,
    ...     contralex.MomentumEncoder(encoder, momentum=0.99),
    ...     contralex.QueueSource(size=64, dim=16),
    ...     contralex.InstanceTargets(),
    ...     contralex.InfoNCE(temperature=0.2),
    ...     matches=[contralex.Match(query=0, key=1)],
    ... )
    >>> step = contralex.Step(contralex.Clock(step=0, total=10, per_epoch=2), seed=0, batch=4)
    >>> result = method({0: torch.rand(4, 192), 1: torch.rand(4, 192)}, torch.arange(4), step)
    >>> method.update(result.keys, step)  # after the optimiser's step
    """

    def __init__(
        self,
        encoder: Encoder,
        key_encoder: KeyEncoder,
        negatives: NegativeSource,
        targets: TargetGenerator,
        loss: Loss,
        matches: Sequence[Match],
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.key_encoder = key_encoder
        self.negatives = negatives
        self.targets = targets
        self.loss = loss
        self.matches = tuple(matches)
        self.loss_scale = len(self.matches) if reduction == "sum" else 1  # times the mean over the matches
        # In the order of the views: BatchNorm's running statistics end on the last view that is encoded, which in the
        # official codes is the last of the sample's.
        self.query_views = tuple(sorted({match.query for match in matches}))
        self.key_views = tuple(sorted({match.key for match in matches}))
        sharded = list(sharded_buffers(self))
        if sharded:  # where DistributedDataParallel broadcasts buffers, all would get the part of the first process
            keep_from_broadcasts(self, sharded)

    def forward(self, views: Mapping[int, ViewBatch], sample: Tensor, step: Step) -> StepResult:
        """One step on this process's part of the batch: ``views`` (B, ...) each, of the samples ``sample`` (B,)."""
        queries, keys = self.encode(views, sample, step)
        return self.look_up(queries, keys, step)

    def encode(self, views: Mapping[int, ViewBatch], sample: Tensor, step: Step) -> tuple[Rows, Rows]:
        """The expensive half: return this process's queries, and the keys of every process."""
        if step.part == 0:
            self.negatives.prepare(step)
        queries, keys = self.encode_own(views, sample, step)
        return queries, keys.gather(gradient=self.key_encoder.gradient)

    def encode_own(self, views: Mapping[int, ViewBatch], sample: Tensor, step: Step) -> tuple[Rows, Rows]:
        """Return this process's queries and its keys.

        They are encoded in micro-batches of ``step.micro_batch`` samples, where the step says so; the rows and their
        gradients are the same, see :mod:`contralex.lookup.micro_batches`.
        """
        if step.micro_batch is None or step.micro_batch >= len(sample):
            if self._queries_are_keys:
                queries, _ = self._encode_queries(views, sample)
                return queries, queries
            return self._encode_both(views, sample, step)
        if self.key_encoder.gradient or self.key_encoder.reads_queries:
            return self._encode_both_in_parts(views, sample, step, step.micro_batch)
        return self._encode_each_in_parts(views, sample, step, step.micro_batch)

    @property
    def _queries_are_keys(self) -> bool:
        same_views = self.query_views == self.key_views
        return same_views and self.key_encoder.passes_embeddings and self.encoder.has_same_sides

    def _encode_both(self, views: Mapping[int, ViewBatch], sample: Tensor, step: Step) -> tuple[Rows, Rows]:
        queries, embedded = self._encode_queries(views, sample)
        return queries, self._encode_keys(views, embedded, sample, step)

    def _encode_both_in_parts(
        self, views: Mapping[int, ViewBatch], sample: Tensor, step: Step, size: int
    ) -> tuple[Rows, Rows]:
        """Keys that share a pass with the queries, or carry a gradient of their own, are encoded beside them."""
        if self._queries_are_keys:

            def encode_once(which: slice, sample: Tensor) -> Rows:
                return self._encode_queries(_cut(views, which, sample), sample)[0]

            rows = Rows.join(encode_in_parts(encode_once, sample, size, [self.encoder, self.key_encoder]), sample)
            return rows, rows

        def encode(which: slice, sample: Tensor) -> tuple[Rows, Rows]:
            return self._encode_both(_cut(views, which, sample), sample, step)

        parts = encode_in_parts(encode, sample, size, [self.encoder, self.key_encoder])
        queries, keys = zip(*parts, strict=True)
        return Rows.join(queries, sample), Rows.join(keys, sample)

    def _encode_each_in_parts(
        self, views: Mapping[int, ViewBatch], sample: Tensor, step: Step, size: int
    ) -> tuple[Rows, Rows]:
        """Keys without gradient are encoded after the queries, and once."""

        def encode_queries(which: slice, sample: Tensor) -> tuple[Rows, dict[int, Tensor]]:
            return self._encode_queries(_cut(views, which, sample), sample)

        queries, embedded = zip(*encode_in_parts(encode_queries, sample, size, [self.encoder]), strict=True)
        joined = {view: torch.cat([part[view].detach() for part in embedded]) for view in embedded[0]}

        def encode_keys(which: slice, sample: Tensor) -> Rows:
            return self._encode_keys(_cut(views, which, sample), _cut(joined, which, sample), sample, step)

        with torch.no_grad():
            if self.key_encoder.takes_whole_batch:
                keys = encode_keys(slice(None), sample)
            else:
                keys = Rows.join(encode_in_parts(encode_keys, sample, size, [self.key_encoder]), sample)
        return Rows.join(queries, sample), keys

    def _encode_queries(self, views: Mapping[int, ViewBatch], sample: Tensor) -> tuple[Rows, dict[int, Tensor]]:
        """The queries, and the embedding of each view that the encoder has seen."""
        online = self.query_views
        if self.key_encoder.reads_queries:  # the same embedding serves both sides, so encode each view once
            online = tuple(sorted({*self.query_views, *self.key_views}))
        embedded = self.encoder({view: views[view] for view in online})
        asked = self.encoder.queries({view: embedded[view] for view in self.query_views})
        return Rows.from_views(asked, sample), embedded

    def _encode_keys(
        self, views: Mapping[int, ViewBatch], embedded: Mapping[int, Tensor], sample: Tensor, step: Step
    ) -> Rows:
        return self.key_encoder(  # type: ignore[no-any-return]
            self.encoder, {view: views[view] for view in self.key_views}, embedded, sample, step
        )

    def look_up(self, queries: Rows, keys: Rows, step: Step) -> StepResult:
        """The cheap half, in float32: every query view looks its key view up."""
        losses, hits = [], []
        with _without_autocast(queries.vectors.device.type):
            is_same = queries is keys
            queries = _in_float32(queries)
            keys = queries if is_same else _in_float32(keys)
            twins = Twins.find(queries, keys)
            for match in self.matches:
                asked = queries.select_view(match.query)
                dictionary = self.negatives(asked, keys, match, step)
                if twins is not None:
                    dictionary.meet_twins(asked.vectors, twins)
                targets = self.targets(asked, keys, dictionary, match, step)
                losses.append(self.loss(asked, dictionary, targets, step))
                with torch.no_grad():
                    hits.append(_measure_accuracy(asked, keys, dictionary, targets, match))
        total = _divide(_add(losses), len(losses) / self.loss_scale)
        return StepResult(total, _divide(_add(hits), len(hits)), keys.detach(), dictionary.size)

    @torch.no_grad()
    def update(self, keys: Rows, step: Step) -> None:
        """Update the key encoder, the dictionary and the targets' state, once, after the optimiser's step.

        The dictionary is written *after* the look-up; before it, the positive would be among the negatives.
        """
        self.key_encoder.update(step)
        self.negatives.update(keys, step)
        self.targets.update(keys, step)


def _cut(views: Mapping[int, Any], which: slice, sample: Tensor) -> dict[int, Any]:
    """These samples' part of each view, on the device of ``sample``: a whole batch of views needs no room on a GPU."""
    return {view: each[which].to(sample.device, non_blocking=True) for view, each in views.items()}


def _without_autocast(device: str) -> AbstractContextManager[Any]:
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _in_float32(rows: Rows) -> Rows:
    return rows if rows.vectors.dtype == torch.float32 else replace(rows, vectors=rows.vectors.float())


def _add(numbers: Sequence[Tensor]) -> Tensor:
    """The sum of scalars, in few operations where they are few."""
    if len(numbers) > 2:
        return torch.stack(list(numbers)).sum()
    return numbers[0] if len(numbers) == 1 else numbers[0] + numbers[1]


def _divide(number: Tensor, divisor: float) -> Tensor:
    return number if divisor == 1 else number / divisor


def _measure_accuracy(queries: Rows, keys: Rows, dictionary: Dictionary, targets: Targets, match: Match) -> Tensor:
    """The fraction of queries whose best-scoring entry is the one that they should find, a scalar."""
    if targets.has_weights:  # of several that are wanted most, any will do
        wanted = targets.tiled_weights.at(dictionary.find_best(queries.vectors))
        most = targets.tiled_weights.largest()  # 0: this query is to find nothing
        return ((wanted >= most) & (most > 0)).float().mean()
    if targets.has_vectors:  # regression: is the sample's own key the nearest of the batch's keys?
        matched = keys.select_view(match.key)
        normal = nn.functional.normalize
        asked, entries = normal(queries.vectors, dim=1), normal(matched.vectors, dim=1)
        index = queries.find_in(matched, same_view=False)
        per_sample = matched.per_sample
        if per_sample == 1:
            scores = asked @ entries.T
        else:  # of its own sample's keys alone: all patches against all patches would be larger than the network
            asked = asked.unflatten(0, (-1, queries.per_sample))  # (B, Q, D)
            own = entries.unflatten(0, (-1, per_sample))[index.view(asked.shape[:2])[:, 0] // per_sample]  # (B, P, D)
            scores, index = (asked @ own.mT).flatten(0, 1), index % per_sample
        return (scores.argmax(dim=1) == index).float().mean()
    return dictionary.finds(queries.vectors, targets.index).float().mean()
