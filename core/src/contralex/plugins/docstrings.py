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
from typing import Any

from pydantic import BaseModel


def field_docstrings(cls: type) -> dict[str, str]:
    """For each field of the class itself the string that follows it; empty where there is no source code."""
    return _of_module(cls.__module__).get(cls.__qualname__.replace(".<locals>", ""), {})


def describe(spec: type[BaseModel], schema: dict[str, Any]) -> None:
    """Gives each field the docstring under it; of several classes that have the field, the nearest one's."""
    names = {field.alias or name: name for name, field in spec.model_fields.items()}
    for shown, field in schema.get("properties", {}).items():
        name = names.get(shown, shown)
        written = next((docs[name] for docs in map(field_docstrings, _specs(spec)) if name in docs), "")
        if written and "description" not in field:
            field["description"] = written
    if "description" not in schema and (inherited := next((each.__doc__ for each in _specs(spec) if each.__doc__), "")):
        schema["description"] = inspect.cleandoc(inherited)


def _specs(spec: type[BaseModel]) -> list[type[BaseModel]]:
    """The class and those that it is made from, down to the class ``Spec`` that all are made from."""
    made_from = [each for each in spec.__mro__ if issubclass(each, BaseModel)]
    return [each for each in made_from if BaseModel not in each.__bases__ and each is not BaseModel]


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
