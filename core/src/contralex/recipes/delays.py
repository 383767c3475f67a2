"""What a recipe counts in epochs from the beginning of the run, beside how long the run is.

A warm-up of 10 epochs is right for 1000 of them, and takes all of a run of 5. The specs declare such stretches
(:meth:`contralex.plugins.spec.Spec.delays`); this module finds them, and knows no kind by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from contralex.errors import remedy
from contralex.plugins.spec import Delay, Spec
from contralex.recipes.run_spec import RunSpec
from contralex.recipes.walk import walk


def of_run(run: RunSpec) -> Iterator[tuple[str, Delay]]:
    """Each delay with the path of its number. How often is evaluated or saved is no part of the training."""
    yield from _below(run.method, "method")
    yield from _below(run.train, "train")


def too_long(run: RunSpec, epochs: float) -> list[str]:
    """A sentence for each delay that takes more of a run of so many ``epochs`` than it says itself."""
    return [
        f"{path} is {delay.epochs:g}, which is {_part_of(delay.epochs, epochs)} the {epochs:.4g} epochs of this run: "
        f"{delay.meanwhile}. Train for longer, or try:{remedy('--set', f'{path}={fitting}')}"
        for path, delay, fitting in shortened(run, epochs)
    ]


def shortened(run: RunSpec, epochs: float) -> Iterator[tuple[str, Delay, str]]:
    """The path of each delay that takes more of a run of so many ``epochs`` than it says itself, and what it may be."""
    for path, delay in of_run(run):
        if delay.epochs > delay.most * epochs:
            yield path, delay, _fitting(delay, epochs)


def _fitting(delay: Delay, epochs: float) -> str:
    most = delay.most * epochs
    return str(math.floor(most)) if most >= 1 or isinstance(delay.epochs, int) else f"{most:.1g}"


def _part_of(delay: float, epochs: float) -> str:
    return "all of" if delay == epochs else "more than" if delay > epochs else f"{delay / epochs:.0%} of"


def _below(value: Spec, path: str) -> Iterator[tuple[str, Delay]]:
    for place, spec in walk(value, path):
        if isinstance(spec, Spec):
            yield from ((f"{place}.{delay.field}", delay) for delay in spec.delays())
