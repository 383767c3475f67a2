"""The doors: what plugins, templates and the documentation import of contralex, and what stands behind each name."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib import import_module
from inspect import isfunction
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import contralex
import contralex.plugin
import contralex.testing
from contralex.plugin import Spec
from contralex.plugins import building
from contralex.plugins.hooks import SLOTS
from contralex.plugins.registry import registry
from tests.packages import ROOT, load_tool

SHAPE = load_tool("shape")
CORE = SHAPE.read_core(ROOT / "core" / "src")
DOORS: list[ModuleType] = [contralex, contralex.plugin, contralex.testing]
TEMPLATES = ROOT / "core/src/contralex/cli/templates"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^( *)```python[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def not_promised(code: str) -> list[str]:
    """What a file imports of contralex past the three doors, or from a door that does not list it."""
    tree = SHAPE.ast.parse(textwrap.dedent(code))
    listed = {f"{door.__name__}.{name}" for door in DOORS for name in door.__all__}
    allowed = listed | {door.__name__ for door in DOORS}
    imported = [name for name in SHAPE.imported_names(tree) if name.split(".")[0] == "contralex"]
    return [name for name in imported if name not in allowed]


def python_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.py")) if "__pycache__" not in path.parts]


@pytest.mark.parametrize(
    "plugin", sorted(path.parent for path in ROOT.glob("plugins/*/src")), ids=lambda path: path.name
)
def test_plugins_import_from_the_doors_alone(plugin: Path) -> None:
    found = {path.name: not_promised(path.read_text("utf-8")) for path in python_files(plugin / "src")}
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize("path", python_files(TEMPLATES), ids=lambda path: str(path.relative_to(TEMPLATES)))
def test_templates_import_from_the_doors_alone(path: Path) -> None:
    assert not_promised(path.read_text("utf-8")) == []


def blocks() -> Iterator[Any]:
    for page in PAGES:
        for number, (_, code) in enumerate(_BLOCK.findall(page.read_text("utf-8")), 1):
            yield pytest.param(code, id=f"{page.relative_to(ROOT)} {number}")


@pytest.mark.parametrize("code", list(blocks()))
def test_python_in_the_documentation_imports_from_the_doors_alone(code: str) -> None:
    assert not_promised(code) == []


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("from contralex.plugin import Loss, Spec", []),
        ("import contralex\nimport torch", []),
        ("from contralex.testing import Conformance", []),
        ("from contralex.plugin import import_module", ["contralex.plugin.import_module"]),
        ("from contralex import files", ["contralex.files"]),
        ("from contralex.testing.kit import cases", ["contralex.testing.kit.cases"]),
        ("def build(self):\n    import contralex.lookup.step", ["contralex.lookup.step"]),
    ],
)
def test_an_import_past_the_doors_is_found(code: str, names: list[str]) -> None:
    assert not_promised(code) == names


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_every_name_of_a_door_resolves(door: ModuleType) -> None:
    assert len(set(door.__all__)) == len(door.__all__)
    assert [name for name in door.__all__ if not hasattr(door, name)] == []


def test_every_name_of_the_authors_door_has_a_docstring() -> None:
    without = [name for name in contralex.plugin.__all__ if not _docstring(name)]
    assert without == []


def _docstring(name: str) -> str | None:
    """Of a class, function or module its own; of a type alias or constant, the string literal below its definition."""
    value = getattr(contralex.plugin, name)
    if isinstance(value, type):
        return value.__dict__.get("__doc__")
    if isinstance(value, ModuleType) or isfunction(value):
        return value.__doc__
    return _attribute_docstring(name)


def _attribute_docstring(name: str) -> str | None:
    source = CORE[contralex.plugin._MODULE[name]].tree.body
    for statement, below in pairwise(source):
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if any(getattr(target, "id", None) == name for target in targets):
            value = getattr(getattr(below, "value", None), "value", None)
            return value if isinstance(value, str) else None
    return None


@pytest.mark.parametrize("door", ["contralex", "contralex.plugin"])
def test_a_door_opens_without_torch(door: str) -> None:
    code = f"import sys, {door}; dir({door}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Specs and parts


def specs() -> list[type[Spec]]:
    """Every kind that is installed."""
    found = {registry().find(slot, kind) for slot in SLOTS for kind in registry().kinds(slot)}
    return sorted((cls for cls in found if cls is not None), key=lambda cls: (cls.__module__, cls.__name__))


each_spec = pytest.mark.parametrize("spec", specs(), ids=lambda spec: f"{spec.__module__}.{spec.__name__}")


@each_spec
def test_no_spec_builds_by_hand(spec: type[Spec]) -> None:
    assert "build" not in {name for cls in spec.__mro__[: spec.__mro__.index(Spec)] for name in vars(cls)}
    assert spec.builds
    assert callable(building.part_of(spec))


def test_no_class_of_a_spec_file_has_the_name_of_a_part() -> None:
    parts = {building.part_of(spec).__name__ for spec in specs()}
    for module in {spec.__module__ for spec in specs()}:
        classes = {name for name, value in vars(import_module(module)).items() if isinstance(value, type)}
        assert classes & parts == set(), module
