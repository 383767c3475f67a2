"""Numbers that change over training, usable wherever a recipe may hold a number.

A schedule is a pure function of the step, so a run that resumes, or runs on more processes, sees the
same values.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from itertools import accumulate
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from contralex.lookup.clock import Clock
from contralex.plugins.spec import Delay, Spec


class Cosine(Spec):
    """Half a cosine from ``start`` to ``end``, after a linear warm-up, whose steps always change the value.

    Source: SGDR (Loshchilov & Hutter, 2017), Eq. 5, without restarts; the warm-up is Goyal et al. (2017).
    """

    kind: Literal["cosine"] = "cosine"
    start: float
    """The value at the beginning, after the warm-up."""
    end: float = 0.0
    """The value at the end."""
    warmup_epochs: float = Field(0.0, ge=0, le=1e6)
    """Epochs over which the value rises in a straight line from ``warmup_start``."""
    warmup_start: float = 0.0
    """The value at the first step of the warm-up."""
    warmup_counts: Literal["from_0", "from_1", "both_ends"] = "from_0"
    """The part of the way that step s of a warm-up of W steps has gone: s/W (``from_0``), (s+1)/W (``from_1``), or
    s/(W-1) (``both_ends``)."""
    per: Literal["step", "epoch"] = "step"
    """The cosine changes with every step, or once an epoch."""
    spans: Literal["rest", "run"] = "rest"
    """The cosine covers the ``rest`` of the run after the warm-up, or the complete ``run``, and the warm-up then ends
    in the cosine's value at ``warmup_epochs``."""
    counts_from: Literal[0, 1] = 0
    """The number of the first step, or epoch, on the cosine; where that is 1, its ``start`` is never reached."""

    def delays(self) -> list[Delay]:
        return _warmup(self.warmup_epochs)

    def value(self, clock: Clock) -> float:
        now, total = clock.at("step"), clock.total / clock.per_epoch
        if now < self.warmup_epochs:
            peak = self._cosine(self.warmup_epochs, total)
            return self.warmup_start + (peak - self.warmup_start) * self._warmed(clock)
        first = self.counts_from if self.per == "epoch" else self.counts_from / clock.per_epoch
        return self._cosine(clock.at(self.per) + first, total)

    def _warmed(self, clock: Clock) -> float:
        if self.warmup_counts == "from_0":
            return clock.at("step") / self.warmup_epochs
        steps = math.ceil(self.warmup_epochs * clock.per_epoch - 1e-9)  # less what rounding may add
        return (clock.step + 1) / steps if self.warmup_counts == "from_1" else clock.step / max(steps - 1, 1)

    def _cosine(self, epochs: float, total: float) -> float:
        begin = self.warmup_epochs if self.spans == "rest" else 0.0
        part = min(max(epochs - begin, 0.0) / max(total - begin, 1e-12), 1.0)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * part)) / 2


class Linear(Spec):
    """A straight line from ``start`` to ``end`` over the first ``epochs``, then ``end``."""

    kind: Literal["linear"] = "linear"
    start: float
    """The value at the beginning."""
    end: float
    """The value after ``epochs``, and from then on."""
    epochs: float = Field(gt=0, le=1e6)
    """Epochs from ``start`` to ``end``."""
    per: Literal["step", "epoch"] = "step"
    """Whether the value changes at each ``step`` or once in an ``epoch``."""

    def delays(self) -> list[Delay]:
        return [Delay("epochs", self.epochs, "the end of the line is never reached", most=1.0)]

    def value(self, clock: Clock) -> float:
        return self.start + (self.end - self.start) * min(clock.at(self.per) / self.epochs, 1.0)


_Factor = Annotated[float, Field(gt=0, le=1e6)]
_Epoch = Annotated[float, Field(ge=0, le=1e6)]


class Steps(Spec):
    """``start``, multiplied by ``factor`` at each of the epochs ``at``, after a linear warm-up from zero."""

    kind: Literal["steps"] = "steps"
    start: float
    """The value before the first of ``at``."""
    factor: _Factor | tuple[_Factor, ...] = 0.1
    """Multiplies the value at each of ``at``: one number for all of them, or a list with one for each."""
    at: tuple[_Epoch, ...]
    """The epochs at which the value is multiplied."""
    warmup_epochs: float = Field(0.0, ge=0, le=1e6)
    """Epochs over which the value rises in a straight line."""

    @model_validator(mode="after")
    def _one_factor_a_step(self) -> Steps:
        if isinstance(self.factor, tuple) and len(self.factor) != len(self.at):
            raise ValueError(
                f"factor lists {len(self.factor)} and at {len(self.at)}; list one factor for each epoch of at, or "
                "give one number for all"
            )
        return self

    def delays(self) -> list[Delay]:
        falls = (
            Delay(f"at.{index}", epoch, "the value never changes there", most=_BEFORE_THE_END)
            for index, epoch in enumerate(self.at)
        )
        return [*_warmup(self.warmup_epochs), *falls]

    def value(self, clock: Clock) -> float:
        now = clock.at("step")
        if now < self.warmup_epochs:
            return self.start * now / self.warmup_epochs
        return math.prod((factor for epoch, factor in self._steps() if now >= epoch), start=self.start)

    def reached(self) -> list[float]:
        """The values after 0, 1, 2, ... of the steps."""
        return list(accumulate((factor for _, factor in sorted(self._steps())), operator.mul, initial=self.start))

    def _steps(self) -> list[tuple[float, float]]:
        factors = self.factor if isinstance(self.factor, tuple) else (self.factor,) * len(self.at)
        return list(zip(self.at, factors, strict=True))


_BEFORE_THE_END = 0.99  # of a run: what changes in its last step changes nothing


def _warmup(epochs: float) -> list[Delay]:
    # The longest of a paper is 40 of 300 epochs (MoCo v3's ViT).
    return [Delay("warmup_epochs", epochs, "until then the value is still warming up", most=0.2)] if epochs else []


def _tag(value: object) -> str:
    kind = value.get("kind", "no kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return str(kind) if kind is not None else "number"


Number = Annotated[
    Annotated[float, Tag("number")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[Linear, Tag("linear")]
    | Annotated[Steps, Tag("steps")],
    Discriminator(
        _tag,
        custom_error_type="schedule",
        custom_error_message="a number is expected here, or a schedule of kind cosine, linear or steps",
    ),
]
"""A field that is a number, or a schedule that changes it over training."""


def bounds(number: float | Cosine | Linear | Steps) -> tuple[float, float]:
    """The smallest and largest value that a number or schedule takes, for bounds that a field states."""
    if isinstance(number, Steps):
        reached = number.reached()
        return min(reached), max(reached)
    if isinstance(number, Cosine | Linear):
        ends = [number.start, number.end]
        if isinstance(number, Cosine) and number.warmup_epochs:
            ends.append(number.warmup_start)
        return min(ends), max(ends)
    return float(number), float(number)


def _within(what: str, low: float, high: float) -> Callable[[Number], Number]:
    def check(value: Number) -> Number:
        least, most = bounds(value)
        if not low <= least <= most <= high:
            goes = f"is {least:g}" if least == most else f"goes from {least:g} to {most:g}"
            raise ValueError(f"{what} stays between {low:g} and {high:g}, and here it {goes}")
        return value

    return check


class Divides:
    """Marks a field whose number divides scores."""


Temperature = Annotated[Number, AfterValidator(_within("a temperature", 1e-4, 1e3)), Divides()]
"""A number or schedule that divides scores. Scores of unit vectors, divided by less than the lower bound, are 0 or
infinite to a softmax."""
Rate = Annotated[Number, AfterValidator(_within("a rate", 0.0, 1e38))]
"""A learning rate: a number or schedule. One below 0 trains upwards, and float32 holds none above the upper bound."""
Fraction = Annotated[Number, AfterValidator(_within("a momentum", 0.0, 1.0))]
"""A number or schedule from 0 to 1, such as the weight of the old value in a moving average."""
