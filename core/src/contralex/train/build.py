"""From a spec to the modules that run it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from contralex.lookup import LookUp, Match
from contralex.parts.base import BuildContext, Encoder
from contralex.spec.run import RunSpec


def look_up(spec: RunSpec, population: int, labels: Sequence[int] | None = None) -> LookUp:
    """The method of a spec, for a training set of ``population`` samples with these labels, if it has any. Weights are
    a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.train.seed)
        return _assemble(spec, population, labels)


def encoder(spec: RunSpec) -> Encoder:
    """The query encoder alone, with the weights that :func:`look_up` starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.train.seed)
        made: Encoder = buildable(spec.method.encoder).build()
        return made


def _assemble(spec: RunSpec, population: int, labels: Sequence[int] | None) -> LookUp:
    method = spec.method
    made: Encoder = buildable(method.encoder).build()
    matches = [Match(query, key) for query, key in spec.matches()]
    context = BuildContext(
        dim=made.dim,
        population=population,
        batch=spec.train.batch_size,
        key_views=tuple(dict.fromkeys(match.key for match in matches)),
        encoder=made,
        fresh_encoder=lambda: buildable(method.encoder).build(),
        labels=None if labels is None else torch.as_tensor(labels),
    )
    key_encoder = buildable(method.key_encoder).build(context)
    context = BuildContext(**{**vars(context), "key_encoder": key_encoder})
    return LookUp(
        made,
        key_encoder,
        buildable(method.negatives).build(context),
        buildable(method.targets).build(context),
        buildable(method.loss).build(context),
        matches,
        method.reduction,
    )


def buildable(spec: Any) -> Any:
    """A slot's spec is known to be buildable, because the hook that offered it says so; its type is open."""
    return spec
