"""The step: look each query up in a dictionary of keys.

Every method of contralex is this one step with other parts in its five slots. Nothing here knows a method, and no
plugin repeats what is here.

The convention on several processes: each process computes the mean loss over *its own* queries against keys from
*every* process. A gather whose backward sums over the processes, followed by the mean that DistributedDataParallel
takes, then gives exactly the gradient that one process would give for the batch of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from contralex.compat import keep_from_broadcasts
from contralex.lookup import nested
from contralex.lookup.clock import Schedule, value_at
from contralex.lookup.micro_batches import encode_in_parts
from contralex.lookup.names import IMAGE, MAIN
from contralex.lookup.precision import at_least_float32
from contralex.lookup.question import Question, add
from contralex.lookup.sharded_state import sharded_buffers
from contralex.lookup.slots import Encoder, KeyEncoder, Loss, NegativeSource, TargetGenerator
from contralex.lookup.twins import Twins
from contralex.lookup.values import Answer, Match, Rows, Step, StepResult
from contralex.lookup.view import ViewBatch


class LookUp(Question):
    """A method: the five slots, and the one step that joins them.

    ``reduction``: ``mean`` or ``sum`` over the matches. A method that asks its encoding several questions has further
    ``look_ups``, each with a name; its own slots are then its main one, of this ``weight`` and this output (``of``).

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
        *,
        weight: float | Schedule = 1.0,
        of: str = IMAGE,
        look_ups: Mapping[str, Question] | None = None,
    ) -> None:
        nn.Module.__init__(self)  # the encoders come before the slots, in the order of the parameters
        self.encoder = encoder
        self.key_encoder = key_encoder
        self._hold(negatives, targets, loss, matches, reduction, weight, of)
        self.look_ups = nn.ModuleDict(look_ups)
        self._others = dict(look_ups or {})
        self.asked_views = _views_of_outputs([(each, each.query_views) for each in self.questions.values()])
        self.found_views = _views_of_outputs([(each, each.key_views) for each in self.questions.values()])
        self._asked = {question.of for question in self.questions.values()}
        self._compared = {question.of for question in self.questions.values() if question.compares_samples}
        self._asks_once = not look_ups and self.asked_views.keys() == {of}
        self.encoded_queries = _in_order(self.asked_views.values())
        self.encoded_keys = _in_order(self.found_views.values())
        sharded = list(sharded_buffers(self))
        if sharded:  # where DistributedDataParallel broadcasts buffers, all would get the part of the first process
            keep_from_broadcasts(self, sharded)

    @property
    def questions(self) -> dict[str, Question]:
        """All look-ups of a step by their names; the method's own, ``main``, is the first."""
        return {MAIN: self, **self._others}

    @property
    def has_several_outputs(self) -> bool:
        """Whether more than the encoder's main output is asked for."""
        return self.asked_views.keys() != {IMAGE}

    def forward(self, views: Mapping[int, ViewBatch], sample: Tensor, step: Step) -> StepResult:
        """One step on this process's part of the batch: ``views`` (B, ...) each, of the samples ``sample`` (B,)."""
        queries, keys = self.encode(views, sample, step)
        return self.look_up(queries, keys, step)

    def encode(self, views: Mapping[int, ViewBatch], sample: Tensor, step: Step) -> tuple[Rows, Rows]:
        """The expensive half: return this process's queries, and the keys of every process, of the main look-up. Those
        of the encoder's other outputs are in ``step``.

        Keys of several positions are not gathered where no look-up compares samples: nobody would read them.
        """
        if step.part == 0:
            for name, question in self.questions.items():
                question.negatives.prepare(step.of_look_up(name))
        queries, keys = self.encode_own(views, sample, step)
        step.queries = queries
        step.keys = {of: self._gather(of, rows) for of, rows in keys.items()}
        return step.queries[self.of], step.keys[self.of]

    def _gather(self, of: str, keys: Rows) -> Rows:
        if of in self._compared or (of in self._asked and not keys.has_positions):
            return keys.gather(gradient=self.key_encoder.gradient)
        return keys if self.key_encoder.gradient else keys.detach()

    def encode_own(
        self, views: Mapping[int, ViewBatch], sample: Tensor, step: Step
    ) -> tuple[dict[str, Rows], dict[str, Rows]]:
        """Return this process's queries and its keys, by the output of the encoder.

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
        same_views = self.asked_views == self.found_views
        return same_views and self.key_encoder.passes_embeddings and self.encoder.has_same_sides

    def _encode_both(
        self, views: Mapping[int, ViewBatch], sample: Tensor, step: Step
    ) -> tuple[dict[str, Rows], dict[str, Rows]]:
        queries, embedded = self._encode_queries(views, sample)
        return queries, self._encode_keys(views, embedded, sample, step)

    def _encode_both_in_parts(
        self, views: Mapping[int, ViewBatch], sample: Tensor, step: Step, size: int
    ) -> tuple[dict[str, Rows], dict[str, Rows]]:
        """Keys that share a pass with the queries, or carry a gradient of their own, are encoded beside them."""
        if self._queries_are_keys:

            def encode_once(which: slice, sample: Tensor) -> dict[str, Rows]:
                return self._encode_queries(_cut(views, which, sample), sample)[0]

            rows = _join(encode_in_parts(encode_once, sample, size, [self.encoder, self.key_encoder]), sample)
            return rows, rows

        def encode(which: slice, sample: Tensor) -> tuple[dict[str, Rows], dict[str, Rows]]:
            return self._encode_both(_cut(views, which, sample), sample, step)

        parts = encode_in_parts(encode, sample, size, [self.encoder, self.key_encoder])
        queries, keys = zip(*parts, strict=True)
        return _join(queries, sample), _join(keys, sample)

    def _encode_each_in_parts(
        self, views: Mapping[int, ViewBatch], sample: Tensor, step: Step, size: int
    ) -> tuple[dict[str, Rows], dict[str, Rows]]:
        """Keys without gradient are encoded after the queries, and once."""

        def encode_queries(which: slice, sample: Tensor) -> tuple[dict[str, Rows], dict[int, Any]]:
            return self._encode_queries(_cut(views, which, sample), sample)

        queries, embedded = zip(*encode_in_parts(encode_queries, sample, size, [self.encoder]), strict=True)
        joined = nested.cat([nested.detach(part) for part in embedded])

        def encode_keys(which: slice, sample: Tensor) -> dict[str, Rows]:
            return self._encode_keys(_cut(views, which, sample), nested.select(joined, which), sample, step)

        with torch.no_grad():
            if self.key_encoder.takes_whole_batch:
                keys = encode_keys(slice(None), sample)
            else:
                keys = _join(encode_in_parts(encode_keys, sample, size, [self.key_encoder]), sample)
        return _join(queries, sample), keys

    def _encode_queries(self, views: Mapping[int, ViewBatch], sample: Tensor) -> tuple[dict[str, Rows], dict[int, Any]]:
        """The queries of each output, and the embedding of each view that the encoder has seen."""
        online = self.encoded_queries
        if self.key_encoder.reads_queries:  # the same embedding serves both sides, so encode each view once
            online = tuple(sorted({*online, *self.encoded_keys}))
        embedded = self.encoder({view: views[view] for view in online})
        asked = {
            of: self.encoder.queries_of(of, {view: embedded[view] for view in wanted})
            for of, wanted in self.asked_views.items()
        }
        return {of: Rows.from_views(vectors, sample) for of, vectors in asked.items()}, embedded

    def _encode_keys(
        self, views: Mapping[int, ViewBatch], embedded: Mapping[int, Any], sample: Tensor, step: Step
    ) -> dict[str, Rows]:
        seen = {view: views[view] for view in self.encoded_keys}
        if self.has_several_outputs:
            return self.key_encoder.encode_outputs(self.encoder, seen, embedded, sample, step, self.found_views)
        return {IMAGE: self.key_encoder(self.encoder, seen, embedded, sample, step)}

    def look_up(self, queries: Rows, keys: Rows, step: Step) -> StepResult:
        """The cheap half, in at least float32: each question's query views look their key views up. ``queries`` and
        ``keys`` are the main one's; what the others ask is in ``step``, where :meth:`encode` has put it."""
        if self._asks_once:
            return self._look_up_once(queries, keys, step)
        with _without_autocast(queries.vectors.device.type):
            _put_precisely(step, {**step.queries, self.of: queries}, {**step.keys, self.of: keys})
            twins: dict[tuple[int, int], Twins | None] = {}
            answers = {
                name: self._answer(question, step.of_look_up(name), twins) for name, question in self.questions.items()
            }
        losses = [_weigh(answers[name].loss, question.weight, step) for name, question in self.questions.items()]
        step.detach_rows()
        main = answers[MAIN]
        several = {name: answer.detach() for name, answer in answers.items()} if self.look_ups else {}
        return StepResult(add(losses), main.accuracy, step.keys[self.of], main.entries, several)

    def _look_up_once(self, queries: Rows, keys: Rows, step: Step) -> StepResult:
        """The same where there is one look-up of one output, in fewer steps of Python."""
        is_same = queries is keys
        with _without_autocast(queries.vectors.device.type):
            queries = _make_precise(queries)
            keys = queries if is_same else _make_precise(keys)
            step.queries, step.keys = {self.of: queries}, {self.of: keys}
            answer = self.ask(queries, keys, Twins.find(queries, keys), step)
        found = keys.detach()
        step.queries, step.keys = {self.of: found if is_same else queries.detach()}, {self.of: found}
        return StepResult(_weigh(answer.loss, self.weight, step), answer.accuracy, found, answer.entries)

    def _answer(self, question: Question, step: Step, twins: dict[tuple[int, int], Twins | None]) -> Answer:
        asked, found = step.queries[question.of], step.keys[question.of]
        is_same = asked is found and question.query_views == question.key_views
        queries = asked.select_views(question.query_views)
        keys = queries if is_same else found.select_views(question.key_views)
        seen = id(queries), id(keys)
        if seen not in twins:  # several questions of the same rows share what was found of them
            twins[seen] = Twins.find(queries, keys)
        return question.ask(queries, keys, twins[seen], step)

    @torch.no_grad()
    def update(self, keys: Rows, step: Step) -> None:
        """Update the key encoder and the state of each look-up, once, after the optimiser's step. ``step``: the one of
        the look-up; ``keys``: its result's.

        The dictionary is written *after* the look-up; before it, the positive would be among the negatives.
        """
        self.key_encoder.update(step)
        found = {**step.keys, self.of: keys}
        for name, question in self.questions.items():
            asked = step.asked(question.of).select_views(question.query_views)
            own = found[question.of].select_views(question.key_views)
            question.follow_step(asked, own, step.of_look_up(name))


def _views_of_outputs(asking: Iterable[tuple[Question, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    """For each output of the encoder the views of the questions that ask for it, or whose parts read it."""
    wanted: dict[str, set[int]] = {}
    for question, views in asking:
        for output in (question.of, *question.reads):
            wanted.setdefault(output, set()).update(views)
    return {output: tuple(sorted(views)) for output, views in wanted.items()}


def _in_order(views: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sorted({view for each in views for view in each}))


def _join(parts: Sequence[Mapping[str, Rows]], sample: Tensor) -> dict[str, Rows]:
    return {of: Rows.join([part[of] for part in parts], sample) for of in parts[0]}


def _cut(views: Mapping[int, Any], which: slice, sample: Tensor) -> dict[int, Any]:
    """These samples' part of each view, on the device of ``sample``: a whole batch of views needs no room on a GPU."""
    return {view: each[which].to(sample.device, non_blocking=True) for view, each in views.items()}


def _without_autocast(device: str) -> AbstractContextManager[Any]:
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _put_precisely(step: Step, queries: dict[str, Rows], keys: dict[str, Rows]) -> None:
    """The rows of each output into ``step``; queries that are the keys stay one and the same."""
    step.queries = {of: _make_precise(rows) for of, rows in queries.items()}
    step.keys = {of: step.queries[of] if rows is queries.get(of) else _make_precise(rows) for of, rows in keys.items()}


def _make_precise(rows: Rows) -> Rows:
    vectors = at_least_float32(rows.vectors)
    return rows if vectors is rows.vectors else replace(rows, vectors=vectors)


def _weigh(loss: Tensor, weight: float | Schedule, step: Step) -> Tensor:
    number = value_at(weight, step.clock)
    return loss if number == 1 else loss * number
