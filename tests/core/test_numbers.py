"""Every number of every kind has bounds, and what cannot be meant is refused where the spec is read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, get_args

import pytest
from pydantic import ValidationError, create_model

from contralex import resolve
from contralex.plugin import ContralexError, Spec
from contralex.plugins.hooks import SLOTS
from contralex.plugins.registry import registry
from contralex.recipes.run_spec import RunSpec
from contralex.recipes.schedules import Cosine, Linear, Steps
from contralex.training import devices
from contralex_cmc.spec import LabSpec

# A schedule's own numbers are bounded by the field that it stands in; they are only finite.
BOUNDED_ELSEWHERE = {(Cosine, "start"), (Cosine, "end"), (Cosine, "warmup_start"), (Linear, "start"), (Linear, "end")}
BOUNDED_ELSEWHERE |= {(Steps, "start")}
# Of these a validator of the whole block says more than a bound would; tests/plugins/test_cmc.py has it.
BOUNDED_ELSEWHERE |= {(LabSpec, "split"), (LabSpec, "mean"), (LabSpec, "std")}


def specs() -> Iterator[type[Spec]]:
    """The run's, and those of all kinds that are installed, with what they hold."""
    found = registry()
    left: list[Any] = [RunSpec, *(found.find(slot, kind) for slot in SLOTS for kind in found.kinds(slot))]
    seen: set[type[Spec]] = set()
    while left:
        hint = left.pop()
        if isinstance(hint, type) and issubclass(hint, Spec):
            if hint not in seen:
                seen.add(hint)
                yield hint
                left += [field.annotation for field in hint.model_fields.values()]
        else:
            left += get_args(hint)


def fields() -> list[Any]:
    return [
        pytest.param(spec, name, id=f"{spec.__module__}.{spec.__name__}.{name}")
        for spec in specs()
        for name in spec.model_fields
    ]


def shapes(value: float) -> Iterator[Any]:
    yield value
    for count in (1, 2, 3):
        yield [value] * count
    yield {"kind": "linear", "start": value, "end": value, "epochs": 1}


@pytest.mark.parametrize(("spec", "name"), fields())
def test_a_number_has_a_lowest_and_a_highest_value(spec: type[Spec], name: str) -> None:
    field = spec.model_fields[name]
    hint = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    model = create_model("One", __base__=Spec, value=(hint, ...))
    values = [math.nan, math.inf, -math.inf]
    if (spec, name) not in BOUNDED_ELSEWHERE:
        values += [1e39, -1e39, 10**39, -(10**39)]
    for value in values:
        for shape in shapes(value):
            with pytest.raises(ValidationError):
                model.model_validate({"value": shape})


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("train.optimizer.lr=-0.1", "train.optimizer.lr: a rate stays between 0 and 1e+38, and here it is -0.1"),
        (
            "train.optimizer.lr.start=-0.1",
            "train.optimizer.lr: a rate stays between 0 and 1e+38, and here it goes",
        ),
        ("train.optimizer.weight_decay=-1", "train.optimizer.weight_decay: a rate stays between 0 and 1e+38"),
        (
            "train.optimizer={kind: adamw, lr: 1, betas: [1.5, 2]}",
            "betas.0: must be less than 1, not 1.5",
        ),
        (f"train.seed={10**30 - 1}", "train.seed: must be less than"),
        ("method.loss.temperature=.nan", "method.loss.temperature: a finite number is expected here, not nan"),
        ("method.loss.temperature=.inf", "method.loss.temperature: a finite number is expected here, not inf"),
        ("method.loss.temperature=1e-40", "method.loss.temperature: a temperature stays between 0.0001 and 1000"),
        ("train.workers=100000", "train.workers: must be at most 1024, not 100000"),
        ("method.views.groups.crops.augment.normalize.std=[0, 0, 0]", "normalize.std.0: must be at least 1e-06, not 0"),
        ("method.views.groups.crops.augment.crop.size=1000000", "crop.size: must be at most 8192, not 1000000"),
        (f"method.encoder.projector=[{{width: {10**12}}}]", "projector.0.width: must be at most"),
        (f"method.negatives={{kind: prototypes, count: {10**12}}}", "method.negatives.count: must be at most"),
    ],
)
def test_what_cannot_be_meant_is_refused(setting: str, sentence: str) -> None:
    with pytest.raises(ContralexError) as error:
        resolve("moco-v2", sets=[setting])
    assert sentence in str(error.value)


def test_workers_follow_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_cores", lambda: 2)
    for number in (None, 0, 16):
        devices.check_workers(number)
    with pytest.raises(ContralexError, match=r"train.workers is 17 on each process.*\n  --set train.workers=2$"):
        devices.check_workers(17)


def test_every_recipe_is_within_the_bounds() -> None:
    for recipe in registry().recipes():
        resolve(recipe)


@pytest.mark.parametrize(
    ("recipe", "path", "schedule", "missing"),
    [
        ("moco-v2", "method.key_encoder.momentum", "{kind: linear, start: 0.9, end: 1}", "epochs"),
        ("moco-v2", "train.optimizer.lr", "{kind: linear, start: 0.9, end: 1}", "epochs"),
        ("dino", "method.targets.temperature", "{kind: steps, start: 0.9}", "at"),
    ],
)
def test_what_a_schedule_misses_is_named_in_its_own_field(recipe: str, path: str, schedule: str, missing: str) -> None:
    """Also where the field is called as its block's kind is."""
    with pytest.raises(ContralexError) as error:
        resolve(recipe, sets=[f"{path}={schedule}"])
    assert str(error.value).startswith(f"{path}.{missing}: this is missing")
