"""The docstring under each field of a spec, which JSON Schema and ``contralex plugins show --kind`` show.

pydantic would read them where a class is made (``use_attribute_docstrings``). That is every start of the command
line, and most commands show none; so here they are read when they are asked for.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache


def field_docstrings(cls: type) -> dict[str, str]:
    """For each field of the class itself the string that follows it; empty where there is no source code."""
    return _of_module(cls.__module__).get(cls.__qualname__.replace(".<locals>", ""), {})


@cache
def _of_module(name: str) -> dict[str, dict[str, str]]:
    try:
        tree = ast.parse(inspect.getsource(sys.modules[name]))
    except (KeyError, OSError, TypeError, SyntaxError):
        return {}
    return {path: dict(_described(node)) for path, node in _classes(tree, ())}


def _classes(node: ast.AST, path: tuple[str, ...]) -> Iterator[tuple[str, ast.ClassDef]]:
    """Every class with its path, such as ``Outer.Inner``, those inside functions too."""
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        here = (*path, child.name) if named else path  # type: ignore[attr-defined]
        if isinstance(child, ast.ClassDef):
            yield ".".join(here), child
        yield from _classes(child, here)


def _described(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, after in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            yield field.target.id, " ".join(inspect.cleandoc(after.value.value).split())
