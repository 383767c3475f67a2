"""Key encoders: the query's own encoder, its moving average, or a frozen one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from contralex.errors import ContralexError, named
from contralex.lookup import distributed
from contralex.lookup.clock import value_at
from contralex.lookup.slots import Encoder, KeyEncoder
from contralex.lookup.values import Rows, Step
from contralex.plugins.building import BuildContext

if TYPE_CHECKING:
    from contralex.kinds.key_encoders import specs

M = TypeVar("M", bound=nn.Module)
_SHUFFLE = 1  # the purpose of the step's generator


def _rows(encoder: Encoder, embedded: Mapping[int, Tensor], sample: Tensor) -> Rows:
    return Rows.cat([Rows.of(v, sample, view, at) for view, (v, at) in encoder.keys(embedded).items()])


class Shared(KeyEncoder):
    """Keys come from the encoder of the queries: with gradient in SimCLR, without in SwAV and SimSiam."""

    reads_queries = True

    def __init__(self, spec: specs.Shared) -> None:
        super().__init__()
        self.gradient = spec.gradient

    def forward(
        self,
        encoder: Encoder,
        views: Mapping[int, Tensor],
        embedded: Mapping[int, Tensor],
        sample: Tensor,
        step: Step,
    ) -> Rows:
        rows = _rows(encoder, {view: embedded[view] for view in views}, sample)
        return rows if self.gradient else rows.detach()


class Momentum(KeyEncoder):
    """Keys come from an exponential moving average of the encoder: θ_k ← m·θ_k + (1−m)·θ_q (MoCo, Eq. 2).

    Only parameters are averaged; the twin stays in training mode and keeps BatchNorm statistics of its own,
    as in the code of MoCo and BYOL. But keys are without noise: dropout and drop path are off (DINO's teacher).
    """

    def __init__(self, spec: specs.Momentum, context: BuildContext) -> None:
        super().__init__()
        self.momentum = spec.momentum
        self.shuffle = spec.shuffle_bn
        fresh = context.fresh_encoder() if spec.init == "random" else copy.deepcopy(context.encoder)
        self.encoder = _without_noise(_frozen(fresh))
        self._pairs: list[tuple[nn.Module, nn.Module]] = [(context.encoder, self.encoder)]
        self.twins = nn.ModuleList()

    def train(self, mode: bool = True) -> Momentum:
        _without_noise(super().train(mode))
        return self

    def forward(
        self,
        encoder: Encoder,
        views: Mapping[int, Tensor],
        embedded: Mapping[int, Tensor],
        sample: Tensor,
        step: Step,
    ) -> Rows:
        with torch.no_grad():
            if not self.shuffle:
                return _rows(self.encoder, self.encoder(views), sample)
            # Shuffle-BN (MoCo, section 3.3): keys are normalised beside other samples than their queries are,
            # so that batch statistics cannot tell which key belongs to which query.
            local = len(sample)
            order = torch.randperm(local * distributed.world(), generator=step.generator(_SHUFFLE))
            order = order.to(sample.device)
            mine = order[distributed.own_slice(local)]
            shuffled = {view: distributed.gather(images)[mine] for view, images in views.items()}
            rows = _rows(self.encoder, self.encoder(shuffled), distributed.gather(sample)[mine])
            back = torch.argsort(order)[distributed.own_slice(local)]
            return Rows.cat([_unshuffled(rows.of_view(view).gather(gradient=False), order, back) for view in views])

    def side(self, module: M) -> M:
        twin = _without_noise(_frozen(copy.deepcopy(module)))
        self.twins.append(twin)
        self._pairs.append((module, twin))
        return twin

    def update(self, step: Step) -> None:
        momentum = value_at(self.momentum, step.clock)
        for online, twin in self._pairs:
            mine: list[Tensor] = list(twin.parameters())
            theirs: list[Tensor] = [parameter.detach() for parameter in online.parameters()]
            torch._foreach_lerp_(mine, theirs, 1.0 - momentum)


class Frozen(KeyEncoder):
    """Keys come from an encoder that never changes: another run's, or this run's at its beginning."""

    def __init__(self, spec: specs.Frozen, context: BuildContext) -> None:
        super().__init__()
        if spec.checkpoint is None:
            teacher = context.fresh_encoder()
        else:
            with named("method.key_encoder.checkpoint"):
                teacher = context.load_encoder(spec.checkpoint)
        if teacher.dim != context.dim:
            raise ContralexError(
                f"method.key_encoder: the frozen encoder of {spec.checkpoint} gives vectors of {teacher.dim} numbers "
                f"and the query encoder of {context.dim}; give method.encoder a projector that ends in {teacher.dim}."
            )
        self.encoder = _frozen(teacher)

    def train(self, mode: bool = True) -> Frozen:
        return super().train(False)  # a fixed function of its input: BatchNorm uses what it has learnt

    def forward(
        self,
        encoder: Encoder,
        views: Mapping[int, Tensor],
        embedded: Mapping[int, Tensor],
        sample: Tensor,
        step: Step,
    ) -> Rows:
        with torch.no_grad():
            return _rows(self.encoder, self.encoder(views), sample)


def _frozen(module: M) -> M:
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def _without_noise(module: M) -> M:
    """Puts all into evaluation mode but what takes statistics of the batch, which are buffers.

    Noise is told by what it lacks, because every library has a class of its own for it.
    """
    for each in module.modules():
        if not isinstance(each, _BatchNorm) and not any(True for _ in each.buffers(recurse=False)):
            each.training = False
    return module


def _unshuffled(rows: Rows, order: Tensor, back: Tensor) -> Rows:
    """The rows of this process's samples, in their order; ``rows`` holds every sample's P places, shuffled."""
    places = len(rows) // len(order)
    return rows[(back.unsqueeze(1) * places + torch.arange(places, device=back.device)).flatten()]
