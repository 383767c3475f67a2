"""Before a run starts: does every BatchNorm get more than one value, and a number of samples that its groups divide?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from contralex.compat import BatchNorm
from contralex.errors import ContralexError, remedy
from contralex.lookup import distributed
from contralex.lookup.batch_norm import current_rows_per_sample
from contralex.recipes.run_spec import RunSpec
from contralex.recipes.sample_counts import advice

_SAMPLES = 2


@dataclass(frozen=True)
class SeenByNorm:
    """What a BatchNorm saw of :data:`_SAMPLES` samples: rows, values of a channel, and rows that are one piece."""

    name: str
    rows: int
    values: int
    together: int


def check(seen: Iterable[SeenByNorm], spec: RunSpec, dataset_size: int) -> None:
    """Raises :class:`ContralexError` where a whole batch would give a BatchNorm too few values."""
    for norm in seen:
        _check(norm, spec, dataset_size)


def _check(norm: SeenByNorm, spec: RunSpec, dataset_size: int) -> None:
    batch, over, world = spec.train.look_up_size, spec.train.batch_norm, distributed.world()
    local = spec.train.samples_at_once(world)
    is_divided = local < batch // world
    if is_divided and over == "sync":
        raise ContralexError(
            f"train.batch_norm is sync, the statistics of a whole batch, and train.micro_batch encodes {local} of its "
            f"samples at once, so {norm.name}, a BatchNorm, cannot have them. Normalise groups of samples instead:"
            + remedy("--set", f"train.batch_norm={local}")
        )
    if is_divided and isinstance(over, int) and local % over:  # a group would hold other samples than in a whole batch
        raise ContralexError(
            f"train.batch_norm is {over}, and train.micro_batch encodes {local} samples at once, which are no whole "
            f"groups of {over}. Try:" + remedy("--set", f"train.batch_norm={local}")
        )
    if isinstance(over, int) and (norm.rows * local // _SAMPLES) % (over * norm.together):
        raise ContralexError(
            f"train.batch_norm is {over}, which does not divide the {norm.rows * local // _SAMPLES // norm.together} "
            f"samples that {norm.name} normalises at once on each process. Try:"
            + remedy("--set", "train.batch_norm=sync")
        )
    samples = batch if over == "sync" else over if isinstance(over, int) else local
    if norm.values * samples > _SAMPLES:
        return
    several = f", {local} on each of {world} processes" if world > 1 else ""
    if is_divided:
        several += f", and train.micro_batch {local}"
    if spec.train.accumulate > 1:
        several = f", in {spec.train.accumulate} parts (train.accumulate){several}"
    problem = f"train.batch_size is {spec.train.batch_size}{several}, so {norm.name}, a BatchNorm, sees one value."
    if batch > 1:
        raise ContralexError(f"{problem} Try:{remedy('--set', 'train.batch_norm=sync')}")
    raise ContralexError(f"{problem} {advice(dataset_size, world)}")


@contextmanager
def watch(module: nn.Module) -> Iterator[list[SeenByNorm]]:
    """What each BatchNorm in training mode sees within."""
    seen: list[SeenByNorm] = []

    def note(name: str, norm: BatchNorm, inputs: tuple[Any, ...]) -> None:
        x = inputs[0]
        if norm.training:
            seen.append(
                SeenByNorm(f"method.encoder's {name}", len(x), x.numel() // x.shape[1], current_rows_per_sample())
            )

    hooks = [
        norm.register_forward_pre_hook(lambda norm, inputs, name=name: note(name, norm, inputs))
        for name, norm in module.named_modules()
        if isinstance(norm, BatchNorm)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
