"""What a backbone is called in other libraries, as data. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Library = Literal["torchvision", "timm", "transformers"]
"""A library whose models may be a backbone's networks."""


@dataclass(frozen=True)
class NewLayer:
    """A module of ``torch.nn`` that is put in the place of one of a model's own: its class, and its arguments."""

    module: str
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def code(self) -> str:
        """The expression that makes it."""
        given = [*map(repr, self.arguments), *(f"{name}={value!r}" for name, value in self.options.items())]
        return f"torch.nn.{self.module}({', '.join(given)})"


@dataclass(frozen=True)
class Architecture:
    """A model of another library that computes what a backbone does, from the same tensors.

    ``name`` and ``arguments``: as ``torchvision.models.get_model`` or ``timm.create_model`` takes them; for
    transformers, the name of a model and the arguments of its configuration. ``layers``: what is then put in the place
    of the model's own modules, by their paths. ``any_size``: whether timm's model takes images of any size, where it
    can. ``left_out``: tensors of the backbone that the model has no use for. ``note``: a sentence on what it does
    differently with images of other sizes.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, NewLayer] = field(default_factory=dict)
    any_size: bool = False
    left_out: Sequence[str] = ()
    note: str = ""
