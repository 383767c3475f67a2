"""Facts that stand in several places agree. `make facts` mends what this finds."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.version import Version

import contralex
from tests.packages import load_tool

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "facts.py"


@pytest.fixture(scope="module")
def facts() -> ModuleType:
    return load_tool("facts")


def test_derived_files_are_up_to_date() -> None:
    check = subprocess.run([sys.executable, str(TOOL), "--check"], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr


def test_a_file_that_is_out_of_date_is_named_with_the_command(
    facts: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale, fresh = tmp_path / "stale.txt", tmp_path / "fresh.txt"
    stale.write_text("old")
    fresh.write_text("new")
    monkeypatch.setattr(facts, "ROOT", tmp_path)
    monkeypatch.setattr(facts, "derived", lambda: {stale: "new", fresh: "new", tmp_path / "absent.txt": "new"})

    assert facts.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert "stale.txt is out of date; run: make facts" in said
    assert "absent.txt" in said
    assert "fresh.txt" not in said
    assert stale.read_text() == "old"  # a check changes nothing

    assert facts.main([]) == 0
    assert stale.read_text() == "new"
    assert facts.main(["--check"]) == 0


def test_the_lowest_versions_that_are_promised_are_those_that_are_tested() -> None:
    pinned = dict(
        line.split("==") for line in (ROOT / "tests/lowest.txt").read_text().splitlines() if not line.startswith("#")
    )
    promised: dict[str, set[str]] = {}
    for file in [ROOT / "core/pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")]:
        project = tomllib.loads(file.read_text("utf-8"))["project"]
        for bound in [
            *project["dependencies"],
            *(b for some in project.get("optional-dependencies", {}).values() for b in some),
        ]:
            name, _, lowest = bound.partition(">=")
            if not name.startswith("contralex"):
                promised.setdefault(name, set()).add(lowest)
    assert set(promised) - set(pinned) == {
        "datasets",
        "open_clip_torch",
    }  # not installed, and a tool of the tests as well
    for name, version in pinned.items():
        assert all(Version(lowest) == Version(version) for lowest in promised[name]), (name, version, promised[name])


@pytest.mark.parametrize(
    ("version", "bounds"),
    [("0.1.0", "contralex>=0.1,<0.2"), ("0.9.3", "contralex>=0.9,<0.10"), ("1.2.0rc1", "contralex>=1.2,<1.3")],
)
def test_plugins_follow_the_version_of_the_core(facts: ModuleType, version: str, bounds: str) -> None:
    text = facts.lockstep(ROOT / "plugins/moco/pyproject.toml", version)
    assert f'version = "{version}"' in text
    assert f'dependencies = ["{bounds}"]' in text


def test_a_project_without_bounds_is_refused(
    facts: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text('version = "0.1.0"\ndependencies = ["contralex"]\n')
    monkeypatch.setattr(facts, "ROOT", tmp_path)
    with pytest.raises(facts.ContralexError, match=r'needs exactly one line like "contralex>=0\.1,<0\.2"'):
        facts.lockstep(project, "0.1.0")


@pytest.mark.parametrize("page", ["README.md", "docs/recipes.md"])
def test_recipes_in_the_documentation_can_be_read(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    # Those with code beside them are tested with it, in test_code.py.
    recipes = [block for block in blocks if "schema:" in block and "code:" not in block]
    assert recipes
    for text in recipes:
        file = tmp_path / "recipe.yaml"
        file.write_text(text, "utf-8")
        contralex.resolve(str(file), preset="digits")
