"""contralex: contrastive and self-supervised learning as looking a query up in a dictionary of keys.

This is the user's door; an author of plugins imports from :mod:`contralex.plugin`. Importing this package imports no
torch; names that need it are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from contralex.errors import ContralexError

if TYPE_CHECKING:
    from contralex.recipes.layers import resolve
    from contralex.training.build import load_backbone, load_encoder

__version__ = metadata.version("contralex")

_MODULE = {
    "load_backbone": "contralex.training.build",
    "load_encoder": "contralex.training.build",
    "resolve": "contralex.recipes.layers",
}

__all__ = ["ContralexError", "__version__", "load_backbone", "load_encoder", "resolve"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'contralex' has no attribute {name!r}")
    value = getattr(import_module(_MODULE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
