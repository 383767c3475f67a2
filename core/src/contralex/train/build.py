"""From a spec to the modules that run it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from contralex import progress
from contralex.data.base import Source
from contralex.errors import ContralexError
from contralex.lookup import LookUp, Match
from contralex.parts.base import BuildContext, Encoder, buildable
from contralex.spec.base import Spec
from contralex.spec.paths import missing
from contralex.spec.run import RunSpec
from contralex.train import initial, room

__all__ = ["buildable", "encoder", "look_up", "source"]


def look_up(spec: RunSpec, population: int, labels: Sequence[int] | None = None, *, fresh: bool = True) -> LookUp:
    """The method of a spec, for a training set of ``population`` samples with these labels, if it has any. Weights are
    a function of the seed, and of the checkpoint that ``init`` names, which is only read for a ``fresh`` run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.train.seed)
        return _assemble(spec, population, labels, fresh)


def source(spec: Spec) -> Source:
    """The data. Where a folder is gone that a stored spec names, the mistake says how to find it again."""
    try:
        with progress.during("Reading the data"):
            made: Source = buildable(spec).build()
    except ContralexError as error:
        if "--data" not in str(error) and (gone := missing(spec)):
            error.args = (f"{error} If the data have moved from {gone[0]}, say where they are with --data.",)
        raise
    return made


def encoder(spec: RunSpec) -> Encoder:
    """The query encoder alone, with the random weights that :func:`look_up` starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.train.seed)
        made: Encoder = _part(spec, "encoder")
        return made


def _assemble(spec: RunSpec, population: int, labels: Sequence[int] | None, fresh: bool = True) -> LookUp:
    method = spec.method
    made: Encoder = _part(spec, "encoder")
    if spec.init is not None and fresh:  # before a key encoder copies the weights
        initial.load(made, spec.init)
    matches = [Match(query, key) for query, key in spec.matches()]
    context = BuildContext(
        dim=made.dim,
        population=population,
        batch=spec.train.batch_size,
        key_views=tuple(sorted({match.key for match in matches})),
        encoder=made,
        fresh_encoder=lambda: buildable(method.encoder).build(),
        labels=None if labels is None else torch.as_tensor(labels),
        query_views=tuple(sorted({match.query for match in matches})),
    )
    key_encoder = _part(spec, "key_encoder", context)
    context = BuildContext(**{**vars(context), "key_encoder": key_encoder})
    negatives = _part(spec, "negatives", context)
    context = BuildContext(**{**vars(context), "negatives": negatives})
    return LookUp(
        made,
        key_encoder,
        negatives,
        _part(spec, "targets", context),
        _part(spec, "loss", context),
        matches,
        method.reduction,
    )


def _part(spec: RunSpec, slot: str, *context: BuildContext) -> Any:
    with room.Guard(spec, f"method.{slot}"):
        return buildable(getattr(spec.method, slot)).build(*context)
