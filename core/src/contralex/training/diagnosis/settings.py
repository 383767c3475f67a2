"""Settings to try, found in a spec by what its parts declare."""

from __future__ import annotations

from collections.abc import Iterator

from contralex.plugins.spec import Spec
from contralex.recipes.run_spec import RunSpec
from contralex.recipes.schedules import Cosine, Divides, Linear, Steps
from contralex.recipes.walk import walk

Number = float | Cosine | Linear | Steps


def temperatures(run: RunSpec) -> Iterator[tuple[str, Number]]:
    """Every number of the method that divides scores, with its path."""
    for path, spec in walk(run.method, "method"):
        if isinstance(spec, Spec):
            for name, field in type(spec).model_fields.items():
                if any(isinstance(each, Divides) for each in field.metadata):
                    yield f"{path}.{name}", getattr(spec, name)


def scaled(path: str, number: Number, factor: float) -> str:
    """The setting that multiplies a number, or the start of a schedule."""
    if isinstance(number, int | float):
        return f"{path}={number * factor:.3g}"
    return f"{path}.start={number.start * factor:.3g}"


def scaled_rate(run: RunSpec, factor: float) -> str:
    return scaled("train.optimizer.lr", run.train.optimizer.lr, factor)


def scaled_temperature(run: RunSpec, factor: float) -> tuple[str, ...]:
    """For the first temperature there is; none where there is none."""
    return tuple(scaled(path, number, factor) for path, number in list(temperatures(run))[:1])


def augmentation(run: RunSpec) -> str | None:
    """The path of the augmentation of the first view; None where the views declare none."""
    augments = run.method.views.augments()
    if not augments:
        return None
    found = (path for path, value in walk(run.method.views, "method.views") if value is augments[0])
    return next(found, None) or _same_augmentation(run, augments[0])


def _same_augmentation(run: RunSpec, augment: Spec) -> str | None:
    """Views may say one augmentation in terms of another: the first block of its type."""
    found = (path for path, value in walk(run.method.views, "method.views") if type(value) is type(augment))
    return next(found, None)
