"""BatchNorm whose statistics are taken over a stated set of samples, on any number of processes.

``train.batch_norm`` says which: the batch of all processes (``sync``; torch's ``SyncBatchNorm`` refuses CPU modules,
this one works on gloo as well and is differentiable through the statistics), this process's part (``local``), or groups
of n samples, as if n were the batch of one device. Papers that trained on several GPUs without synchronisation did the
last; here it does not depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.compat import BatchNorm, copy_each
from contralex.errors import ContralexError
from contralex.lookup import distributed
from contralex.lookup.precision import at_least_float32

Over = Literal["sync", "local"] | int
_Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
# Groups, up to which they are normalised one after the other; more are too many small operations. Where channels are
# last, more are so as well: to make them channels, each value would be moved twice, and the next layer's order is lost.
_APART = 16
_ROWS = ContextVar("rows per sample", default=1)


@contextmanager
def rows_per_sample(rows: int) -> Iterator[None]:
    """Within this context, each sample is ``rows`` consecutive rows of a BatchNorm's input, as the pieces of a jigsaw.

    A group of n samples then has n·``rows`` rows.
    """
    token = _ROWS.set(rows)
    try:
        yield
    finally:
        _ROWS.reset(token)


def current_rows_per_sample() -> int:
    """The number of rows of a sample here, see :func:`rows_per_sample`."""
    return _ROWS.get()


class _AnyDimensions(BatchNorm):
    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"BatchNorm takes (N, C, ...), not {tuple(input.shape)}")


class SyncBatchNorm(_AnyDimensions):
    """BatchNorm over the batch of all processes, with the values and the gradients of one process."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or distributed.world() == 1:
            return super().forward(input)
        over = [0, *range(2, input.dim())]
        x = at_least_float32(input)
        count = x.numel() // x.shape[1] * distributed.world()
        shape = [1, -1] + [1] * (x.dim() - 2)
        mean = distributed.sum_over_processes(x.sum(over)) / count
        centred = x - mean.view(shape)
        # Two passes, because E[x²] − E[x]² loses the variance of inputs far from zero.
        variance = distributed.sum_over_processes((centred * centred).sum(over)) / count
        self._track(mean.detach(), variance.detach() * count / max(count - 1, 1))
        out = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            out = out * self.weight.view(shape)
        if self.bias is not None:
            out = out + self.bias.view(shape)
        return out.to(input.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(variance, rate)


class GroupedBatchNorm(_AnyDimensions):
    """BatchNorm over consecutive groups of samples; running statistics are the groups' mean."""

    group: int
    """The number of samples in a group."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        rows = self.group * _ROWS.get()
        groups, rest = divmod(len(input), rows)
        if rest:
            raise ContralexError(
                f"train.batch_norm is {self.group}, which does not divide the {len(input) // _ROWS.get()} samples that "
                "a process normalises at once; choose a divisor of train.batch_size / processes, sync or local."
            )
        if groups <= _APART or _is_channels_last(input):
            return self._normalize_apart(input.split(rows))
        # Groups become channels, so that torch's own kernel normalises each by itself, all of them at once.
        channels = input.shape[1]
        x = input.unflatten(0, (groups, rows)).transpose(0, 1).flatten(1, 2)
        mean, variance = self._repeated(groups)
        weight = self.weight.repeat(groups) if self.weight is not None else None
        bias = self.bias.repeat(groups) if self.bias is not None else None
        rate = 0.0 if self.momentum is None else self.momentum
        out = F.batch_norm(x, mean, variance, weight, bias, True, rate, self.eps)
        if mean is not None and variance is not None:
            self._track(mean.view(groups, channels), variance.view(groups, channels))
        ungrouped: Tensor = out.unflatten(1, (groups, channels))
        return ungrouped.transpose(0, 1).flatten(0, 1)

    def _normalize_apart(self, parts: Sequence[Tensor]) -> Tensor:
        """One group after the other, each as it lies in memory, so that channels that are last stay last."""
        mean, variance = self._repeated(len(parts))
        means = [None] * len(parts) if mean is None else list(mean.view(len(parts), -1))
        variances = [None] * len(parts) if variance is None else list(variance.view(len(parts), -1))
        rate = 0.0 if self.momentum is None else self.momentum
        out = [
            F.batch_norm(part, mean, variance, self.weight, self.bias, True, rate, self.eps)
            for part, mean, variance in zip(parts, means, variances, strict=True)
        ]
        if mean is not None and variance is not None:
            self._track(mean.view(len(parts), -1), variance.view(len(parts), -1))
        return torch.cat(out)

    def _track(self, means: Tensor, variances: Tensor) -> None:
        """The running statistics of each group (groups, C) become their mean."""
        if self.running_mean is None or self.running_var is None:
            return
        self.running_mean.copy_(means.mean(0))
        self.running_var.copy_(variances.mean(0))
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)

    def _repeated(self, groups: int) -> tuple[Tensor | None, Tensor | None]:
        if self.running_mean is None or self.running_var is None:
            return None, None
        return self.running_mean.repeat(groups), self.running_var.repeat(groups)


def _is_channels_last(input: Tensor) -> bool:
    """Whether channels are last, and not first as well."""
    return input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous()


def convert(module: nn.Module, over: Over, device: str = "cpu") -> nn.Module:
    """Replace every BatchNorm below ``module`` by one whose statistics are taken ``over`` a set of samples."""
    if over == "local" or (over == "sync" and distributed.world() == 1):
        return module
    if over == "sync" and device == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-any-return]
    for name, child in module.named_children():
        if isinstance(child, _Norm):
            setattr(module, name, _replace(child, over))
        else:
            convert(child, over, device)
    return module


def _replace(norm: _Norm, over: Over) -> nn.Module:
    new: SyncBatchNorm | GroupedBatchNorm
    if isinstance(over, int):
        new = GroupedBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        new.group = over
    else:
        new = SyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    new.weight, new.bias = norm.weight, norm.bias
    new.running_mean, new.running_var = norm.running_mean, norm.running_var
    new.num_batches_tracked = norm.num_batches_tracked
    new.training = norm.training
    return new


def average_running_statistics(module: nn.Module) -> None:
    """Average the running statistics over the processes. Called before they are used or saved, so that they are the
    same on all of them then.

    They are linear in the batches' statistics, so this is what one process would have after the same groups.
    """
    if distributed.world() > 1:
        _average_running_statistics(module)


@torch.no_grad()
def _average_running_statistics(module: nn.Module) -> None:
    synchronised = (SyncBatchNorm, nn.SyncBatchNorm)
    norms = (norm for norm in module.modules() if isinstance(norm, BatchNorm))
    local = [norm for norm in norms if norm.training and not isinstance(norm, synchronised)]
    running = [each for norm in local for each in (norm.running_mean, norm.running_var) if each is not None]
    if running:
        flat = torch.cat([each.flatten() for each in running])  # one collective, not two for each layer
        dist.all_reduce(flat)
        copy_each(running, list((flat / distributed.world()).split([each.numel() for each in running])))
