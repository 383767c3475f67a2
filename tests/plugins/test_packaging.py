"""Each distribution is complete by itself: its metadata, its wheel, and an environment that holds little else."""

from __future__ import annotations

import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.packages import ROOT, check_shape, environment, project, run, wheels_of

PLUGINS = sorted(project.parent for project in ROOT.glob("plugins/*/pyproject.toml"))
each_plugin = pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)


@each_plugin
def test_plugins_have_the_shape_of_what_contralex_new_writes(folder: Path) -> None:
    check_shape(folder)
    about = project(folder)["project"]
    assert about["name"] == f"contralex-{folder.name}"
    assert about["version"] == project(ROOT / "core")["project"]["version"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return wheels_of(tmp_path_factory.mktemp("wheels"), ROOT / "core", *PLUGINS)


@pytest.mark.slow
@each_plugin
def test_a_wheel_holds_code_recipes_entry_point_and_licence(folder: Path, wheels: dict[str, Path]) -> None:
    package = f"contralex_{folder.name}"
    with zipfile.ZipFile(wheels[package]) as wheel:
        names = set(wheel.namelist())
        sources = {
            path.relative_to(folder / "src").as_posix() for path in (folder / "src").rglob("*") if path.is_file()
        }
        assert {name for name in sources if "__pycache__" not in name} <= names
        points = ConfigParser()
        points.read_string(wheel.read(one(names, "entry_points.txt")).decode())
        assert dict(points["contralex"]) == {folder.name: f"{package}.plugin"}
        assert wheel.read(one(names, "LICENSE")) == (ROOT / "LICENSE").read_bytes()
        assert [name for name in names if not name.startswith(package)] == []


@pytest.mark.slow
def test_the_wheel_of_the_core_holds_its_data_and_licence(wheels: dict[str, Path]) -> None:
    source = ROOT / "core/src"
    with zipfile.ZipFile(wheels["contralex"]) as wheel:
        names = set(wheel.namelist())
        files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
        assert {name for name in files if "__pycache__" not in name} <= names
        assert {"contralex/known.json", "contralex/py.typed"} <= names
        assert wheel.read(one(names, "LICENSE")) == (ROOT / "LICENSE").read_bytes()


@pytest.mark.slow
@each_plugin
def test_core_and_one_plugin_are_enough(folder: Path, wheels: dict[str, Path], tmp_path: Path) -> None:
    python = environment(tmp_path / "env", wheels["contralex"], wheels[f"contralex_{folder.name}"])
    contralex = python.with_name("contralex")

    module = "contralex.plugins.registry"
    code = f"from {module} import registry as r; print(*(f'{{p.name}}={{p.state}}' for p in r().plugins.values()))"
    states = run(python, "-I", "-c", code, cwd=tmp_path).split()
    assert states == ["contralex=ready", f"contralex-{folder.name}=ready"]
    code = "from contralex.plugins.registry import registry as r; print(*r().recipes())"
    offered = sorted(path.stem for path in folder.glob(f"src/contralex_{folder.name}/recipes/*.yaml"))
    assert sorted(run(python, "-I", "-c", code, cwd=tmp_path).split()) == offered
    listed = run(contralex, "methods", cwd=tmp_path)
    assert [recipe for recipe in offered if recipe not in listed] == []
    for recipe in offered:  # a recipe needs no other plugin than its own
        run(contralex, "show", recipe, cwd=tmp_path)


def one(names: set[str], ending: str) -> str:
    found = [name for name in names if ".dist-info/" in name and name.endswith(ending)]
    assert len(found) == 1, f"{ending}: {found}"
    return found[0]
