"""What every plugin's package looks like, ours and those that ``contralex new`` writes; and clean environments."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = ("## As a look-up", "## Recipes", "## Published figures", "## Where we differ")
CONFORMANCE = """\
from contralex.testing import Conformance


class TestConformance(Conformance):
    distribution = "{distribution}"
"""


def load_tool(name: str) -> ModuleType:
    """A file of ``tools/`` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))


def check_shape(folder: Path) -> None:
    """The one shape: metadata, entry point, files, card, recipes, and the conformance test."""
    found, core = project(folder), project(ROOT / "core")["project"]
    about = found["project"]
    distribution = about["name"]
    name, package = distribution.removeprefix("contralex-"), distribution.replace("-", "_")
    assert distribution == f"contralex-{name}"
    major, minor = (int(part) for part in core["version"].split(".")[:2])
    assert about["dependencies"][0] == f"contralex>={major}.{minor},<{major}.{minor + 1}"
    assert about["optional-dependencies"]["test"] == ["contralex[testing]"]
    assert about["license"] == core["license"]
    assert about["requires-python"] == core["requires-python"]
    assert about["readme"] == "README.md"
    assert about["entry-points"] == {"contralex": {name: f"{package}.plugin"}}
    assert found["build-system"] == project(ROOT / "core")["build-system"]
    assert found["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [f"src/{package}"]

    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    source = f"src/{package}"
    assert {"README.md", "LICENSE", *(f"{source}/{file}" for file in ("__init__.py", "plugin.py", "py.typed"))} <= files
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (folder / "tests/test_conformance.py").read_text("utf-8") == CONFORMANCE.format(distribution=distribution)
    check_card(folder, name, sorted((folder / source / "recipes").glob("*.yaml")))


def check_card(folder: Path, name: str, recipes: list[Path]) -> None:
    card = (folder / "README.md").read_text("utf-8")
    assert card.startswith(f"# contralex-{name}\n")
    told = card.replace("## As look-ups\n", "## As a look-up\n")  # a method may have several
    assert [section for section in SECTIONS if section not in told] == []
    assert recipes, "a plugin without a recipe gives a user nothing to run"
    assert [recipe.stem for recipe in recipes if f"`{recipe.stem}`" not in card] == []
    presets = {preset for recipe in recipes for preset in yaml.safe_load(recipe.read_text("utf-8")).get("presets", {})}
    assert [preset for preset in sorted(presets - {"tiny"}) if f"`{preset}`" not in card] == []  # tiny is the kit's
    assert all(recipe.read_text("utf-8").startswith("# yaml-language-server: $schema=") for recipe in recipes)


def environment(home: Path, *wheels: Path) -> Path:
    """An environment with the third-party packages of this one, and of contralex only these wheels. Its Python."""
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    _share_third_party_packages(python)
    pip("--python", python, "install", "--no-deps", "--no-index", *wheels)
    return python


def _share_third_party_packages(python: Path) -> None:
    """Links every installed package but contralex's into another environment, so that nothing is downloaded.

    Adding this environment's folder to its path would not do: the entry points of every plugin lie there.
    """
    there = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    for here in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(here).iterdir():
            if "contralex" not in entry.name and not (there / entry.name).exists():
                (there / entry.name).symlink_to(entry)


def wheels_of(out: Path, *folders: Path) -> dict[str, Path]:
    """The folders' wheels, built into ``out``, each by the name of its import package."""
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, *folders)
    return {path.name.split("-")[0]: path for path in out.glob("*.whl")}


def pip(*arguments: object) -> str:
    return run(sys.executable, "-m", "pip", *arguments)


def run(*command: object, cwd: Path | None = None) -> str:
    alone = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CONTRALEX_PLUGINS")}
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**alone, "COLUMNS": "200"},
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
