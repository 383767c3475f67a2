"""Each distribution is complete by itself: its metadata, its wheel, and an environment that holds little else."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = sorted(project.parent for project in ROOT.glob("plugins/*/pyproject.toml"))
each_plugin = pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))


@each_plugin
def test_projects_have_one_shape(folder: Path) -> None:
    name, found = folder.name, project(folder)
    about = found["project"]
    assert about["name"] == f"contralex-{name}"
    assert about["version"] == project(ROOT / "core")["project"]["version"]
    assert about["license"] == "Apache-2.0"
    assert about["requires-python"] == project(ROOT / "core")["project"]["requires-python"]
    assert about["entry-points"] == {"contralex": {name: f"contralex_{name}.plugin"}}
    assert any(line.startswith("contralex>=") for line in about["dependencies"])
    assert found["build-system"]["build-backend"] == "hatchling.build"
    assert found["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [f"src/contralex_{name}"]
    assert (folder / f"src/contralex_{name}/py.typed").exists()


@each_plugin
def test_a_plugin_has_a_card_and_recipes(folder: Path) -> None:
    card = (folder / "README.md").read_text("utf-8")
    assert card.startswith(f"# contralex-{folder.name}\n")
    for section in ("## As a look-up", "## Recipes", "## Published figures", "## Where we differ"):
        assert section in card
    recipes = sorted(path.stem for path in folder.glob(f"src/contralex_{folder.name}/recipes/*.yaml"))
    assert recipes, "a plugin without a recipe gives a user nothing to run"
    assert [recipe for recipe in recipes if f"`{recipe}`" not in card] == []


@each_plugin
def test_entry_modules_import_no_torch(folder: Path) -> None:
    code = f"import sys, contralex_{folder.name}.plugin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("wheels")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, ROOT / "core", *PLUGINS)
    return {path.name.split("-")[0]: path for path in out.glob("*.whl")}


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
    """An environment with the third-party packages of this one, and of contralex only two wheels."""
    home = tmp_path / "env"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    share_third_party_packages(python)
    pip(
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        wheels["contralex"],
        wheels[f"contralex_{folder.name}"],
    )

    code = "from contralex.registry import registry as r; print(*(f'{p.name}={p.state}' for p in r().plugins.values()))"
    states = run(python, "-I", "-c", code, cwd=tmp_path).split()
    assert states == ["contralex=ready", f"contralex-{folder.name}=ready"]
    code = "from contralex.registry import registry as r; print(*r().recipes())"
    offered = sorted(path.stem for path in folder.glob(f"src/contralex_{folder.name}/recipes/*.yaml"))
    assert sorted(run(python, "-I", "-c", code, cwd=tmp_path).split()) == offered
    listed = run(home / "bin" / "contralex", "methods", cwd=tmp_path)
    assert [recipe for recipe in offered if recipe not in listed] == []
    for recipe in offered:  # a recipe needs no other plugin than its own
        run(home / "bin" / "contralex", "show", recipe, cwd=tmp_path)


def share_third_party_packages(python: Path) -> None:
    """Links every installed package but contralex's into another environment, so that nothing is downloaded.

    Adding this environment's folder to its path would not do: the entry points of every plugin lie there.
    """
    there = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    for here in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(here).iterdir():
            if "contralex" not in entry.name and not (there / entry.name).exists():
                (there / entry.name).symlink_to(entry)


def one(names: set[str], ending: str) -> str:
    found = [name for name in names if ".dist-info/" in name and name.endswith(ending)]
    assert len(found) == 1, f"{ending}: {found}"
    return found[0]


def pip(*arguments: object) -> str:
    return run(sys.executable, "-m", "pip", *arguments)


def run(*command: object, cwd: Path | None = None) -> str:
    alone = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CONTRALEX_PLUGINS")}
    environment = {**alone, "COLUMNS": "200"}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
