"""Under which names published checkpoints hold the weights of a method, as tables. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

_TOKEN = re.compile(r"\\\{[n_]\\\}|\\\*")
_GROUPS = {r"\{n\}": r"(\d+)", r"\{_\}": r"\d+", r"\*": r"(.*)"}

How = Literal["as it is", "transposed", "reshaped"]


@dataclass(frozen=True)
class Rename:
    """A tensor's name in a file, and its name in a checkpoint of ours.

    In both, ``{n}`` stands for a number and ``*`` for any rest, each the same on both sides. In theirs, ``{_}`` stands
    for a number that ours is without. ``how``: what is done to the tensor: nothing, its two dimensions are exchanged
    (``transposed``), or it is brought to our shape, which has as many numbers (``reshaped``).
    """

    theirs: str
    ours: str
    how: How = "as it is"

    def apply(self, name: str) -> str | None:
        """Our name of the tensor that is called ``name`` in the file, or None where this is not about it."""
        found = self._pattern.fullmatch(name)
        if found is None:
            return None
        parts = iter(found.groups())
        return re.sub(r"\{n\}|\*", lambda _: next(parts), self.ours)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return name_pattern(self.theirs)


def name_pattern(text: str) -> re.Pattern[str]:
    """What a pattern of names matches, as a regular expression with a group for each ``{n}`` and ``*``."""
    return re.compile(_TOKEN.sub(lambda token: _GROUPS[token[0]], re.escape(text)))


def rename_weight_norm(theirs: str, ours: str) -> list[Rename]:
    """Of a layer with torch's weight norm: as it was first written, and as a parametrisation."""
    gain, direction = (f"parametrizations.weight.original{part}" for part in (0, 1))
    return [
        Rename(f"{theirs}.weight_g", f"{ours}.{gain}"),
        Rename(f"{theirs}.weight_v", f"{ours}.{direction}"),
        Rename(f"{theirs}.parametrizations.*", f"{ours}.parametrizations.*"),
    ]


@dataclass(frozen=True)
class PublishedEncoder:
    """An encoder whose weights somebody published, for ``contralex adapt NAME``.

    ``file``: what it is called where it is published, at ``url``. ``recipes``: those that can go on with it; the first
    that is installed is taken. ``backbone``: the fields of a recipe's backbone with which it makes the network of the
    file; ``settings``: others, by their paths. ``normalize``: the ``mean`` and ``std`` of the pixel values that it saw,
    where they are not those of the recipes.
    """

    name: str
    file: str
    url: str
    recipes: Sequence[str]
    backbone: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    normalize: Mapping[str, Any] = field(default_factory=dict)

    def all_settings(self) -> dict[str, Any]:
        """By their paths."""
        return {**{f"method.encoder.backbone.{name}": value for name, value in self.backbone.items()}, **self.settings}


@dataclass(frozen=True)
class Adaptation:
    """How a recipe goes on with a published encoder on few images, for ``contralex adapt``.

    ``settings``: by their paths, those that differ from the recipe's, whose batches and epochs are of large data sets.
    ``crops``: the paths of the sizes of its crops, each with the fraction of an image's size that it has; none: crops
    have one size alone. ``patches``: the paths of what is as many pixels wide as a patch of the encoder, as those of
    masks.
    """

    recipe: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    crops: Mapping[str, float] = field(default_factory=dict)
    patches: Sequence[str] = ()


@dataclass(frozen=True)
class Layout:
    """The names of a family of published checkpoints.

    ``name``: of the family. ``recipes``: those that it is for; none: it holds a backbone alone, for any recipe whose
    encoder has one. ``source``: the code that writes such files. ``renames``: the first that matches a name holds.
    ``left_out``: patterns of names that are not read, with the reason as a clause. ``note``: a sentence for whoever's
    file does not fit. ``published``: encoders whose files have these names. ``adaptations``: how recipes go on with
    them.

    Names in a file are those of its state dict, without the ``module.`` and ``_orig_mod.`` that torch's wrappers put
    before them. A file of several dicts has them with the path before, as ``student/backbone.cls_token``; the wrapping
    dicts of ``inside`` are taken off.
    """

    name: str
    source: str
    renames: Sequence[Rename]
    recipes: Sequence[str] = ()
    left_out: Mapping[str, str] | None = None
    inside: Sequence[str] = ("state_dict", "model", "model_state_dict")
    note: str = ""
    published: Sequence[PublishedEncoder] = ()
    adaptations: Sequence[Adaptation] = ()
