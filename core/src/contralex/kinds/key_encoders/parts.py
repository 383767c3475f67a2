"""The core's key encoders: the query's own encoder, its moving average, or a frozen one.

Used alone, one makes the keys of a step, and is updated after it::

    key_encoder = MomentumEncoder(encoder, momentum=0.99)
    keys = key_encoder(encoder, {1: images}, {}, samples, step)
    key_encoder.update(step)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from contralex.compat import BatchNorm
from contralex.errors import ContralexError, error_at
from contralex.kinds.key_encoders.averages import MovingAverage
from contralex.lookup import distributed
from contralex.lookup.clock import Schedule, value_at
from contralex.lookup.host_copies import to_device
from contralex.lookup.micro_batches import encode_in_parts
from contralex.lookup.names import IMAGE
from contralex.lookup.slots import Encoder, KeyEncoder
from contralex.lookup.values import Rows, Step
from contralex.lookup.view import ViewBatch, map_view

M = TypeVar("M", bound=nn.Module)
_SHUFFLE = 1  # the purpose of the step's generator


class SharedKeyEncoder(KeyEncoder):
    """Keys come from the encoder of the queries.

    ``gradient``: whether keys carry one (SimCLR, section 2.1), or not (SimSiam, Algorithm 1; SwAV).
    """

    reads_queries = True

    def __init__(self, gradient: bool) -> None:
        super().__init__()
        self.gradient = self.passes_embeddings = gradient

    def forward(
        self,
        encoder: Encoder,
        views: Mapping[int, ViewBatch],
        embedded: Mapping[int, Tensor],
        sample: Tensor,
        step: Step,
    ) -> Rows:
        return self.encode_outputs(encoder, views, embedded, sample, step, {IMAGE: tuple(views)})[IMAGE]

    def encode_outputs(
        self,
        encoder: Encoder,
        views: Mapping[int, ViewBatch],
        embedded: Mapping[int, Any],
        sample: Tensor,
        step: Step,
        wanted: Mapping[str, Sequence[int]],
    ) -> dict[str, Rows]:
        rows = _make_rows(encoder, embedded, sample, wanted)
        return rows if self.gradient else {output: each.detach() for output, each in rows.items()}


class MomentumEncoder(KeyEncoder):
    """Keys come from an exponential moving average of the encoder: θ_k ← m·θ_k + (1−m)·θ_q (MoCo, Eq. 2).

    Only parameters are averaged; the twin stays in training mode and keeps BatchNorm statistics of its own,
    as in the code of MoCo and BYOL. But keys are without noise: dropout and drop path are off (DINO's teacher).

    ``encoder``: the query encoder, which stays the caller's. ``momentum`` (m, from 0 to 1): the weight of the average's
    own past in each :meth:`update`; may be a schedule. ``shuffle_bn``: encode the keys in another order than the
    queries, so that BatchNorm statistics over parts of the batch do not tell them apart (MoCo, section 3.3). ``init``:
    start as a ``copy`` of the encoder or at ``random``, as what ``fresh_encoder()`` makes.

    >>> import contralex, torch
    >>> encoder = contralex.ImageEncoder(contralex.Backbone(torch.nn.Linear(192, 16), dim=16))
    >>> keys = contralex.MomentumEncoder(encoder, momentum=0.99)
    """

    def __init__(
        self,
        encoder: Encoder,
        momentum: float | Schedule,
        shuffle_bn: bool = False,
        init: Literal["copy", "random"] = "copy",
        fresh_encoder: Callable[[], Encoder] | None = None,
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.shuffle = self.takes_whole_batch = shuffle_bn
        self.encoder = _disable_noise(_freeze(_make_twin(encoder, init, fresh_encoder)))
        self._average = MovingAverage()
        self._average.add(encoder, self.encoder)
        self.twins = nn.ModuleList()

    def train(self, mode: bool = True) -> MomentumEncoder:
        return _disable_noise(super().train(mode))

    def forward(
        self,
        encoder: Encoder,
        views: Mapping[int, ViewBatch],
        embedded: Mapping[int, Tensor],
        sample: Tensor,
        step: Step,
    ) -> Rows:
        return self.encode_outputs(encoder, views, embedded, sample, step, {IMAGE: tuple(views)})[IMAGE]

    @torch.no_grad()
    def encode_outputs(
        self,
        encoder: Encoder,
        views: Mapping[int, ViewBatch],
        embedded: Mapping[int, Any],
        sample: Tensor,
        step: Step,
        wanted: Mapping[str, Sequence[int]],
    ) -> dict[str, Rows]:
        if not self.shuffle:
            return _make_rows(self.encoder, self.encoder.encode_keys(views), sample, wanted)
        # Shuffle-BN (MoCo, section 3.3): keys are normalised beside other samples than their queries are,
        # so that batch statistics cannot tell which key belongs to which query.
        local = len(sample)
        order = torch.randperm(local * distributed.world(), generator=step.generator(_SHUFFLE))
        own = distributed.own_slice(local)
        mine, back = (to_device(part, sample.device) for part in (order[own], torch.argsort(order)[own]))
        shuffled = {view: map_view(distributed.gather, images)[mine] for view, images in views.items()}
        rows = self._encode_shuffled(shuffled, distributed.gather(sample)[mine], step, wanted)
        return {
            output: Rows.cat([_unshuffle(rows[output].select_view(view), sample, view, back) for view in its_views])
            for output, its_views in wanted.items()
        }

    def _encode_shuffled(
        self, views: Mapping[int, ViewBatch], sample: Tensor, step: Step, wanted: Mapping[str, Sequence[int]]
    ) -> dict[str, Rows]:
        def encode(which: slice, sample: Tensor) -> dict[str, Rows]:
            embedded = self.encoder.encode_keys({view: images[which] for view, images in views.items()})
            return _make_rows(self.encoder, embedded, sample, wanted)

        parts = encode_in_parts(encode, sample, step.micro_batch, [self.encoder])
        return {output: Rows.join([part[output] for part in parts], sample) for output in wanted}

    def side(self, module: M) -> M:
        twin = _disable_noise(_freeze(copy.deepcopy(module)))
        self.twins.append(twin)
        self._average.add(module, twin)
        return twin

    def update(self, step: Step) -> None:
        self._average.update(1.0 - value_at(self.momentum, step.clock))


class FrozenEncoder(KeyEncoder):
    """Keys come from an encoder that never changes (CRD, section 3.1; BYOL, section 3.1, the random target).

    ``encoder``: a teacher of the query encoder's width, such as :func:`contralex.load_encoder` returns; its parameters
    are frozen.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = _freeze(encoder)

    def train(self, mode: bool = True) -> FrozenEncoder:
        return super().train(False)  # a fixed function of its input: BatchNorm uses what it has learnt

    def forward(
        self,
        encoder: Encoder,
        views: Mapping[int, ViewBatch],
        embedded: Mapping[int, Tensor],
        sample: Tensor,
        step: Step,
    ) -> Rows:
        return self.encode_outputs(encoder, views, embedded, sample, step, {IMAGE: tuple(views)})[IMAGE]

    @torch.no_grad()
    def encode_outputs(
        self,
        encoder: Encoder,
        views: Mapping[int, ViewBatch],
        embedded: Mapping[int, Any],
        sample: Tensor,
        step: Step,
        wanted: Mapping[str, Sequence[int]],
    ) -> dict[str, Rows]:
        return _make_rows(self.encoder, self.encoder.encode_keys(views), sample, wanted)


def _make_rows(
    encoder: Encoder, embedded: Mapping[int, Any], sample: Tensor, wanted: Mapping[str, Sequence[int]]
) -> dict[str, Rows]:
    """The keys of each output in ``wanted``, of these views, from their embeddings."""
    return {
        output: Rows.from_views(encoder.keys_of(output, {view: embedded[view] for view in views}), sample)
        for output, views in wanted.items()
    }


def frozen_encoder(
    dim: int,
    fresh_encoder: Callable[[], Encoder],
    load_encoder: Callable[[str | Path], Encoder],
    checkpoint: str | None = None,
) -> FrozenEncoder:
    """The encoder of a run or ``checkpoint``, frozen, or without one an encoder of random weights. ``dim``: dimensions
    of the queries, which its keys must have."""
    if checkpoint is None:
        return FrozenEncoder(fresh_encoder())
    with error_at("method.key_encoder.checkpoint"):
        teacher = load_encoder(checkpoint)
    if teacher.dim != dim:
        raise ContralexError(
            f"method.key_encoder: the frozen encoder of {checkpoint} gives vectors of {teacher.dim} dimensions and the "
            f"query encoder of {dim}; give method.encoder a projector that ends in {teacher.dim}."
        )
    return FrozenEncoder(teacher)


def _make_twin(
    encoder: Encoder, init: Literal["copy", "random"], fresh_encoder: Callable[[], Encoder] | None
) -> Encoder:
    if init == "copy":
        return copy.deepcopy(encoder)
    if fresh_encoder is None:
        raise ContralexError('MomentumEncoder(init="random") needs fresh_encoder, a function that makes an encoder.')
    return fresh_encoder()


def _freeze(module: M) -> M:
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def _disable_noise(module: M) -> M:
    """Put all into evaluation mode but modules that take statistics of the batch, which are buffers.

    Noise is recognised by the lack of buffers, because every library has a class of its own for it.
    """
    for each in module.modules():
        if not isinstance(each, BatchNorm) and not any(True for _ in each.buffers(recurse=False)):
            each.training = False
    return module


def _unshuffle(rows: Rows, sample: Tensor, view: int, back: Tensor) -> Rows:
    """The rows of one view of this process's ``sample``, in their order; ``rows`` are those of the samples that were
    shuffled to it."""

    def bring_back(tensor: Tensor) -> Tensor:
        everyone: Tensor = distributed.gather(tensor).unflatten(0, (-1, rows.per_sample))
        return everyone[back]

    positions = None if rows.is_counted else bring_back(rows.position)
    return Rows.from_view(bring_back(rows.vectors), sample, view, positions)
