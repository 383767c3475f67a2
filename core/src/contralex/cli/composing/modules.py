"""One Python module from several that have no name in common but what is equal in them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping

_WIDTH = 120  # of the line-length that a written package has in its pyproject.toml


def merge_modules(docstring: str, sources: Iterable[str]) -> str:
    """The imports of all, then the classes and functions of each. What several have stands once, with the last."""
    imports: dict[str, set[str]] = {}
    definitions: dict[str, None] = {}
    for source in sources:
        lines = source.splitlines()
        for node in ast.parse(source).body:
            if isinstance(node, ast.ImportFrom):
                imports.setdefault(str(node.module), set()).update(alias.name for alias in node.names)
            elif isinstance(node, ast.ClassDef | ast.FunctionDef):
                first = min(each.lineno for each in [node, *node.decorator_list])
                definition = "\n".join(lines[first - 1 : node.end_lineno])
                definitions.pop(definition, None)
                definitions[definition] = None
    quoted = f'"""{docstring}\n"""' if "\n" in docstring else f'"""{docstring}"""'
    return "\n\n\n".join([f"{quoted}\n\n{_write_imports(imports)}", *definitions]) + "\n"


def docstring_of(source: str) -> str:
    return ast.get_docstring(ast.parse(source)) or ""


def _write_imports(imports: Mapping[str, Iterable[str]]) -> str:
    """As ruff sorts and formats them."""
    groups: dict[int, list[str]] = {}
    for module, names in sorted(imports.items()):
        ranked = sorted(names, key=_rank_name)
        line = f"from {module} import {', '.join(ranked)}"
        if len(line) > _WIDTH:
            line = "\n".join([f"from {module} import (", *(f"    {name}," for name in ranked), ")"])
        groups.setdefault(_rank_module(module), []).append(line)
    return "\n\n".join("\n".join(groups[rank]) for rank in sorted(groups))


def _rank_module(module: str) -> int:
    """``__future__``, the standard library, other packages, contralex and its plugins."""
    root = module.partition(".")[0]
    if root == "__future__":
        return 0
    return 1 if root in sys.stdlib_module_names else 3 if root.startswith("contralex") else 2


def _rank_name(name: str) -> tuple[int, str]:
    """Constants, classes, functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name
