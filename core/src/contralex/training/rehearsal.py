"""Two samples through the encoder before anything is trained, so that what cannot work is known when a run is built.

Views of a size that a backbone cannot take, pieces that a head does not fit, and statistics over a single value are
mistakes of the user's, and depend on what the views really are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from contralex.compat import BatchNorm
from contralex.errors import ContralexError, remedy
from contralex.lookup import distributed
from contralex.lookup.batch_norm import current_rows_per_sample
from contralex.lookup.step import LookUp
from contralex.recipes.run_spec import RunSpec
from contralex.recipes.sample_counts import advice

_SAMPLES = 2


@dataclass(frozen=True)
class _Seen:
    """What a BatchNorm saw of :data:`_SAMPLES` samples: rows, values of a channel, and rows that are one piece."""

    name: str
    rows: int
    values: int
    together: int


def rehearse(method: LookUp, views: Mapping[int, Tensor], spec: RunSpec, population: int, device: torch.device) -> None:
    """Raises :class:`ContralexError`, on every process alike. The method is as before; ``views`` are of two samples.

    Called before BatchNorm is replaced by what ``train.batch_norm`` says, so no process waits for another.
    """
    encoder = method.encoder
    online = tuple(
        dict.fromkeys((*method.query_views, *(method.key_views if method.key_encoder.reads_queries else ())))
    )
    method.train()
    with _unchanged(encoder, device), _batch_norms(encoder) as seen, torch.no_grad():
        embedded = encoder({view: views[view].to(device) for view in online})
        encoder.queries({view: embedded[view] for view in method.query_views})
    for norm in seen:
        _check(norm, spec, population)


def _check(norm: _Seen, spec: RunSpec, population: int) -> None:
    batch, over, world = spec.train.batch_size, spec.train.batch_norm, distributed.world()
    local = batch // world
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
    problem = f"train.batch_size is {batch}{several}, so {norm.name}, a BatchNorm, sees one value."
    if batch > 1:
        raise ContralexError(f"{problem} Try:{remedy('--set', 'train.batch_norm=sync')}")
    raise ContralexError(f"{problem} {advice(population, world)}")


@contextmanager
def _batch_norms(module: nn.Module) -> Iterator[list[_Seen]]:
    """What each BatchNorm in training mode sees within."""
    seen: list[_Seen] = []

    def look(name: str, norm: BatchNorm, inputs: tuple[Any, ...]) -> None:
        x = inputs[0]
        if norm.training:
            seen.append(_Seen(f"method.encoder's {name}", len(x), x.numel() // x.shape[1], current_rows_per_sample()))

    hooks = [
        norm.register_forward_pre_hook(lambda norm, inputs, name=name: look(name, norm, inputs))
        for name, norm in module.named_modules()
        if isinstance(norm, BatchNorm)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _unchanged(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Running statistics and random numbers are afterwards what they were."""
    before = {buffer: buffer.clone() for buffer in module.buffers()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in before.items():
                    buffer.copy_(value)
