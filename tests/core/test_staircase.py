"""Every import of the core goes down the staircase, and no more than two modules hold each other."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.packages import ROOT, load_tool

SHAPE = load_tool("shape")


@pytest.fixture(scope="module")
def core() -> dict[str, object]:
    found: dict[str, object] = SHAPE.read_core(ROOT / "core" / "src")
    return found


def test_every_folder_has_a_step(core: dict[str, object]) -> None:
    assert SHAPE.on_staircase(core)


def test_no_import_climbs(core: dict[str, object]) -> None:
    assert SHAPE.climbs(core) == []


def test_no_component_is_larger_than_two_modules(core: dict[str, object]) -> None:
    assert [group for group in SHAPE.components(core) if len(group) > 2] == []


# The measure itself, on small trees


def read(folder: Path, files: dict[str, str]) -> dict[str, object]:
    for name, code in {"__init__": "", **files}.items():
        path = folder / "contralex" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(code), "utf-8")
    found: dict[str, object] = SHAPE.read_core(folder)
    return found


@pytest.mark.parametrize(
    ("importer", "code", "climb"),
    [
        ("lookup/step", "from contralex.training.run import train", "contralex.lookup.step -> contralex.training.run"),
        ("files", "import contralex.lookup.step", "contralex.files -> contralex.lookup.step"),
        ("data/base", "from contralex.plugin import Spec", "contralex.data.base -> contralex.plugin"),
        ("data/base", "from contralex import train", "contralex.data.base -> contralex"),
        ("plugin", "from contralex import train", None),
        ("testing/kit", "from contralex.comparison import plan", "contralex.testing.kit -> contralex.comparison.plan"),
        ("comparison/plan", "from ..testing import kit", "contralex.comparison.plan -> contralex.testing.kit"),
        ("training/run", "from contralex.lookup import step", None),
        ("training/run", "from . import setup", None),
        ("training/run", "import torch\nfrom contralex_moco import plugin", None),
    ],
)
@pytest.mark.parametrize(
    "place",
    ["{}", "def f():\n    {}", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {}"],
    ids=["at the top", "in a function", "for types"],
)
def test_a_climb_is_found_wherever_it_is_written(
    importer: str, code: str, climb: str | None, place: str, tmp_path: Path
) -> None:
    modules = ("files", "plugin", "lookup/step", "data/base", "training/run", "training/setup", "testing/kit")
    files = dict.fromkeys((*modules, "comparison/plan"), "")
    indent = place[: place.index("{")].rpartition("\n")[2]
    files[importer] = place.format(code.replace("\n", f"\n{indent}"))
    assert SHAPE.climbs(read(tmp_path, files)) == ([climb] if climb else [])


def test_a_folder_without_a_step_is_found(tmp_path: Path) -> None:
    assert SHAPE.on_staircase(read(tmp_path, {"lookup/step": ""}))
    assert not SHAPE.on_staircase(read(tmp_path, {"lookup/step": "", "utils/misc": ""}))


def test_modules_that_hold_each_other_are_one_component(tmp_path: Path) -> None:
    files = {
        "data/a": "from contralex.data import b",
        "data/b": "def later():\n    from contralex.data import c",
        "data/c": "from contralex.data.a import something",
        "data/d": "from contralex.data import a",
    }
    groups = SHAPE.components(read(tmp_path, files))
    assert groups[0] == ["contralex.data.a", "contralex.data.b", "contralex.data.c"]
    assert {len(group) for group in groups[1:]} == {1}


def test_figures_count_what_they_say(tmp_path: Path) -> None:
    read(
        tmp_path / "core" / "src",
        {
            "lookup/step": """\
                class Part(Spec):
                    def build(self):
                        assert self.x is not None and self.y
                        return self

                    def _built(self): ...

                    def is_built(self): ...

                    @property
                    def built(self): ...

                    def seed(self): ...
            """,
        },
    )
    plugin = tmp_path / "plugins" / "mine" / "src" / "contralex_mine" / "plugin.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text("from contralex.plugin import Spec\nfrom contralex.lookup import step\nimport torch\n", "utf-8")
    assert SHAPE.figures(tmp_path) == {
        "modules of the core": 2,
        "imports that climb": 0,
        "modules in the largest component": 1,
        "lines of the core": 13,
        "build() written by hand": 1,
        "asserts that something is not None": 1,
        "names that plugins import from private modules": 1,
        "functions named by a participle": 1,
    }
