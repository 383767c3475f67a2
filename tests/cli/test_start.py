"""A command that only answers imports little: no more than its answer needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from contralex.api.method_list import methods
from contralex.cli.app import app, narrow
from contralex.plugins import first_party
from contralex.plugins.registry import Registry

MAIN = """
import sys
from contralex.__main__ import main
main()
print(*sys.modules, file=sys.stderr)
"""


@pytest.fixture
def all_known() -> None:
    if first_party.list_recipes() is None:
        pytest.skip("a plugin is installed that is not of this release")


def modules_of(*words: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", MAIN, *words], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.usefixtures("all_known")
def test_the_list_of_methods_needs_no_models() -> None:
    found = modules_of("methods")
    assert "contralex.api.method_list" in found
    assert "contralex.plugins.spec" not in found


@pytest.mark.usefixtures("all_known")
def test_a_recipe_is_shown_with_the_plugins_that_it_uses() -> None:
    found = modules_of("show", "moco-v2")
    assert "contralex.kinds.plugin" in found
    assert "contralex_swav.plugin" not in found
    assert "contralex_swav.plugin" in modules_of("show", "swav")


@pytest.mark.usefixtures("all_known")
def test_a_plugin_is_imported_when_a_kind_of_it_is_asked_for() -> None:
    registry = Registry()
    assert registry.find("targets", "sinkhorn") is not None
    owners = {plugin.name for plugin in registry.owners().values()}
    assert "contralex-swav" in owners
    assert "contralex-clip" not in owners
    assert registry.plugins["contralex-clip"].kinds["loss"]  # all, where all are asked for
    assert registry.recipes()["swav"][0] is registry.find_plugin("contralex-swav")


@pytest.mark.usefixtures("all_known")
def test_other_recipes_than_those_of_the_release_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [method.name for method in methods()]
    known = {name: owner for name, owner in first_party.known_recipes().items() if name != "swav"}
    monkeypatch.setattr(first_party, "known_recipes", lambda: known)
    assert first_party.list_recipes() is None
    assert [method.name for method in methods()] == names


@pytest.mark.parametrize("words", [["methods"], ["eval", "knn", "runs/x"], ["linear"], ["import"], ["plugins", "show"]])
def test_one_command_of_ours_is_made(words: list[str]) -> None:
    narrowed = narrow(words)
    assert len(narrowed.registered_commands) + len(narrowed.registered_groups) == 1


@pytest.mark.parametrize("words", [[], ["--help"], ["finetune"], ["method"]])
def test_else_all_commands_are_made(words: list[str]) -> None:
    assert narrow(words) is app
