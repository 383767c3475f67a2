"""contralex: contrastive and self-supervised learning as looking a query up in a dictionary of keys.

Importing this package imports no torch; names that need it are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from contralex.errors import ContralexError
from contralex.hooks import hookimpl

if TYPE_CHECKING:
    from contralex.data.base import Source, Split, Unreadable
    from contralex.lookup import Dictionary, Found, LookUp, Match, Rows, Step, Targets
    from contralex.parts.base import BuildContext, Encoder, KeyEncoder, Loss, NegativeSource, TargetGenerator
    from contralex.parts.views import Views
    from contralex.spec.base import Delay, Least, Slot, Spec
    from contralex.spec.layers import resolve
    from contralex.spec.paths import LocalPath
    from contralex.spec.schedule import Number, Temperature, bounds, value_at
    from contralex.train.checkpoint import load_backbone, load_encoder

__version__ = metadata.version("contralex")

_WHERE = {
    "contralex.data.base": ("Source", "Split", "Unreadable"),
    "contralex.lookup": ("Dictionary", "Found", "LookUp", "Match", "Rows", "Step", "Targets"),
    "contralex.parts.base": ("BuildContext", "Encoder", "KeyEncoder", "Loss", "NegativeSource", "TargetGenerator"),
    "contralex.parts.views": ("Views",),
    "contralex.spec.base": ("Delay", "Least", "Slot", "Spec"),
    "contralex.spec.layers": ("resolve",),
    "contralex.spec.paths": ("LocalPath",),
    "contralex.spec.schedule": ("Number", "Temperature", "bounds", "value_at"),
    "contralex.train.checkpoint": ("load_backbone", "load_encoder"),
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "BuildContext",
    "ContralexError",
    "Delay",
    "Dictionary",
    "Encoder",
    "Found",
    "KeyEncoder",
    "Least",
    "LocalPath",
    "LookUp",
    "Loss",
    "Match",
    "NegativeSource",
    "Number",
    "Rows",
    "Slot",
    "Source",
    "Spec",
    "Split",
    "Step",
    "TargetGenerator",
    "Targets",
    "Temperature",
    "Unreadable",
    "Views",
    "__version__",
    "bounds",
    "hookimpl",
    "load_backbone",
    "load_encoder",
    "resolve",
    "value_at",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'contralex' has no attribute {name!r}")
    value = getattr(import_module(_MODULE[name]), name)
    globals()[name] = value
    return value
