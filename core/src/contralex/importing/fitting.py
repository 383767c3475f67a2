"""How the tensors of a published checkpoint fit a recipe's, by a layout: each is read, left out with a reason, or
said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import prod

from contralex.plugins.layouts import How, Layout, name_pattern

Shape = tuple[int, ...]
_TRAINING = {
    pattern: "what an optimiser or a scaler keeps is not read: training begins with a fresh one"
    for name in (
        "optimizer",
        "optim",
        "scaler",
        "fp16_scaler",
        "loss_scaler",
        "amp",
        "lr_scheduler",
        "scheduler",
        "lars",
    )
    for pattern in (f"{name}/*",)
}


@dataclass
class Fit:
    """``read``: our name -> theirs, and how. ``left_out``: their name -> why. ``problems``: their name -> what is
    wrong. ``new``: our names that nothing is read for."""

    layout: Layout
    read: dict[str, tuple[str, How]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)


def fit(layout: Layout, theirs: Mapping[str, Shape], ours: Mapping[str, Shape], skip: Sequence[str] = ()) -> Fit:
    """``theirs`` and ``ours``: names with shapes. ``skip``: patterns of names of theirs that are not to be read."""
    found = Fit(layout)
    left_out = {name_pattern(text): why for text, why in {**_TRAINING, **(layout.left_out or {})}.items()}
    for full, shape in theirs.items():
        name = _inside(full, layout.inside)
        if any(fnmatchcase(name, pattern) or fnmatchcase(full, pattern) for pattern in skip):
            found.left_out[full] = "it was asked to be left out"
            continue
        target, how = _renamed(layout, name)
        why = next((why for pattern, why in left_out.items() if pattern.fullmatch(name)), None)
        if target in ours and target not in found.read:
            if _fits(how, shape, ours[target]):
                found.read[target] = full, how
            elif why is None:
                found.problems[full] = f"it is {_shown(shape, how)}, and {target} is {_shown(ours[target])}"
            else:
                found.left_out[full] = why
        elif why is not None:
            found.left_out[full] = why
        elif target in ours:
            found.problems[full] = f"{found.read[target][0]} is read for {target} already"
        else:
            found.problems[full] = (
                f"the recipe makes no {target}" if target else f"the layout {layout.name} has no such name"
            )
    found.new = [name for name in ours if name not in found.read]
    return found


def best_fit(fits: Sequence[Fit]) -> Fit | None:
    """The one that accounts for most: without problems before with, then the one that reads most; None where none
    reads anything."""
    reading = [each for each in fits if each.read]
    return max(reading, key=lambda each: (not each.problems, len(each.read)), default=None)


def _inside(name: str, wrappers: Sequence[str]) -> str:
    for wrapper in wrappers:
        if name.startswith(f"{wrapper}/"):
            return name.removeprefix(f"{wrapper}/")
    return name


def _renamed(layout: Layout, name: str) -> tuple[str, How]:
    for rename in layout.renames:
        new = rename.apply(name)
        if new is not None:
            return new, rename.how
    return "", "as it is"


def _fits(how: How, theirs: Shape, ours: Shape) -> bool:
    if how == "transposed":
        return theirs[::-1] == ours
    return prod(theirs) == prod(ours) if how == "reshaped" else theirs == ours


def _shown(shape: Shape, how: How = "as it is") -> str:
    return f"{shape}" + (f" ({how})" if how != "as it is" else "")
