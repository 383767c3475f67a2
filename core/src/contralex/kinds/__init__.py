"""The core's own kinds, a folder for each slot. Called, it lists the kinds of a slot that are installed.

>>> import contralex
>>> "info_nce" in [kind.kind for kind in contralex.kinds("losses")]
True
"""

import sys
from types import ModuleType

from contralex.plugins.kind_list import Kinds, list_kinds


class _Callable(ModuleType):
    """``contralex.kinds`` is this package wherever a module of it was imported, and a function for users as well."""

    def __call__(self, slot: str | None = None) -> Kinds:
        return list_kinds(slot)


sys.modules[__name__].__class__ = _Callable
