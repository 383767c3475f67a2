"""Many linear classifiers trained at once on the same features: one for each pair of a learning rate and a decay.

The weights of all settings are one tensor (S, C, F), so that a step is two products of matrices for any number of
settings. Each setting sees the same batches, and becomes what it would have become alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Setting:
    """A learning rate, as it is after any scaling with the batch, and a weight decay."""

    rate: float
    weight_decay: float


@dataclass(frozen=True)
class Schedule:
    """The factor of the learning rate over a run: ``half-cosine`` to 0, ``steps`` (a tenth at each of ``milestones``,
    which are epochs), or ``constant``; after a linear warm-up. ``per``: how often it changes."""

    kind: Literal["half-cosine", "steps", "constant"] = "half-cosine"
    milestones: tuple[int, ...] = ()
    warmup_epochs: int = 0
    per: Literal["epoch", "step"] = "epoch"

    def factor(self, epoch: float, epochs: int) -> float:
        """At a time in epochs, which is a whole number where it changes once an epoch."""
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        if self.kind == "half-cosine":
            return 0.5 * (1 + math.cos(math.pi * (epoch - self.warmup_epochs) / (epochs - self.warmup_epochs)))
        return float(0.1 ** sum(epoch >= milestone for milestone in self.milestones)) if self.kind == "steps" else 1.0


@dataclass
class Probes:
    """S linear classifiers: ``weight`` (S, C, F) and ``bias`` (S, C). ``mean`` and ``scale`` (F,): what features are
    normalised by first, where they are."""

    weight: Tensor
    bias: Tensor
    mean: Tensor | None = None
    scale: Tensor | None = None

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """(B, F) to (B, S, C)."""
        if self.mean is not None and self.scale is not None:
            features = (features - self.mean) * self.scale
        return _logits(features, self.weight, self.bias)

    def hits(self, features: Tensor, labels: Tensor) -> Tensor:
        """(S, 2): how many of (B, F) features have their label first, and among the first five, by each setting."""
        ranked = self.logits(features).topk(min(5, self.bias.shape[1]), dim=2).indices
        right = ranked == labels[:, None, None]  # (B, S, 5)
        return torch.stack([right[:, :, 0].sum(dim=0), right.any(dim=2).sum(dim=0)], dim=1)


class SweepTrainer:
    """SGD with momentum, or LARS, for all settings at once.

    ``momentum``, ``nesterov``: as torch.optim.SGD has them. ``trust``: the coefficient of LARS, whose ratio is each
    setting's and tensor's own; None: SGD. ``decay_bias``, ``trust_bias``: whether weight decay and LARS' ratio are for
    biases, too. ``normalize``: a BatchNorm without weights stands before the classifiers, with the batch's moments in
    training, and running ones (momentum 0.1) afterwards. Weights begin as draws of N(0, ``init_std``²), the same for
    all settings, and biases as 0.
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        width: int,
        classes: int,
        *,
        momentum: float = 0.9,
        nesterov: bool = False,
        trust: float | None = None,
        decay_bias: bool = True,
        trust_bias: bool = False,
        normalize: bool = False,
        init_std: float = 0.01,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        drawn = torch.randn(classes, width, generator=torch.Generator().manual_seed(seed)) * init_std
        count = len(settings)
        self.weight = drawn.to(device).expand(count, -1, -1).clone()
        self.bias = torch.zeros(count, classes, device=device)
        self.rate = torch.tensor([setting.rate for setting in settings], device=device)
        self.weight_decay = torch.tensor([setting.weight_decay for setting in settings], device=device)
        self.momentum, self.nesterov, self.trust = momentum, nesterov, trust
        self.decay_bias, self.trust_bias = decay_bias, trust_bias
        self._velocity = [torch.zeros_like(self.weight), torch.zeros_like(self.bias)]
        self._mean = torch.zeros(width, device=device) if normalize else None
        self._variance = torch.ones(width, device=device)

    @torch.no_grad()
    def step(self, features: Tensor, labels: Tensor, factor: float) -> None:
        """One step on (B, F) features with labels (B,), at ``factor`` times each setting's learning rate."""
        if self._mean is not None:
            features = self._normalize(features, self._mean)
        gradients = _gradients(features, labels, self.weight, self.bias)
        for parameter, gradient, velocity in zip((self.weight, self.bias), gradients, self._velocity, strict=True):
            shape = (-1, *[1] * (parameter.dim() - 1))
            is_bias = parameter is self.bias
            if self.decay_bias or not is_bias:
                gradient += self.weight_decay.view(shape) * parameter
            if self.trust is not None and (self.trust_bias or not is_bias):
                gradient *= _trust_ratio(parameter, gradient, self.trust).view(shape)
            velocity.mul_(self.momentum).add_(gradient)
            update = gradient.add(velocity, alpha=self.momentum) if self.nesterov else velocity
            parameter.sub_(update * (self.rate * factor).view(shape))

    def probes(self) -> Probes:
        if self._mean is None:
            return Probes(self.weight, self.bias)
        return Probes(self.weight, self.bias, self._mean, (self._variance + _BN_EPS).rsqrt())

    def _normalize(self, features: Tensor, running: Tensor) -> Tensor:
        mean, variance = features.mean(dim=0), features.var(dim=0, unbiased=False)
        if len(features) > 1:
            unbiased = variance * len(features) / (len(features) - 1)
            running.lerp_(mean, 0.1)
            self._variance.lerp_(unbiased, 0.1)
        return (features - mean) * (variance + _BN_EPS).rsqrt()


_BN_EPS = 1e-6  # MAE's main_linprobe.py


def train(
    trainer: SweepTrainer,
    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    epochs: int,
    steps: int,
    schedule: Schedule,
    say: Callable[[int], None] = lambda epoch: None,
) -> Probes:
    """Train over ``epochs`` of ``steps`` batches; ``batches`` gives those of an epoch: features (B, F), labels (B,)."""
    for epoch in range(epochs):
        for number, (features, labels) in enumerate(batches(epoch)):
            now = epoch + (number / steps if schedule.per == "step" else 0.0)
            trainer.step(features, labels, schedule.factor(now, epochs))
        say(epoch + 1)
    return trainer.probes()


def _logits(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    settings, classes, width = weight.shape
    flat = F.linear(features, weight.view(settings * classes, width), bias.view(-1))
    return flat.view(len(features), settings, classes)


def _gradients(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Of the mean cross-entropy of each setting: (S, C, F) and (S, C)."""
    wrong = _logits(features, weight, bias).softmax(dim=2)
    where = labels[:, None, None].expand(-1, wrong.shape[1], 1)
    wrong.scatter_add_(2, where, wrong.new_full((), -1.0).expand(where.shape))
    wrong /= len(features)
    flat = wrong.flatten(1)  # (B, S·C)
    return (flat.T @ features).view_as(weight), flat.sum(dim=0).view_as(bias)


def _trust_ratio(parameter: Tensor, gradient: Tensor, trust: float) -> Tensor:
    """(S,) trust · ‖w‖ / ‖g‖, and 1 where either is 0 (You et al., 2017, arXiv:1708.03888, as MAE's util/lars.py)."""
    weights, gradients = (each.flatten(1).norm(dim=1) for each in (parameter, gradient))
    ratio = trust * weights / gradients.clamp(min=torch.finfo(gradients.dtype).tiny)
    return torch.where((weights > 0) & (gradients > 0), ratio, torch.ones_like(ratio))
