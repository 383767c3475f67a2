"""Records of distributions as they are found in the wild: whole, damaged, stale, twice. None takes another down."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contralex.api import health
from contralex.plugins.registry import Registry, registry

Install = Callable[..., Path]
LOSS = """
from typing import Literal
from contralex.plugin import Spec, hookimpl

class Magic(Spec):
    kind: Literal["{kind}"] = "{kind}"

@hookimpl
def contralex_losses():
    return [Magic]
"""


def record(folder: Path, name: str = "foo", version: str = "1.0") -> Path:
    return folder / f"{name}-{version}.dist-info"


def state(name: str) -> tuple[str, str]:
    plugin = Registry().plugins[name]
    return plugin.state, plugin.reason


def test_what_a_record_says_is_kept(fake_plugin: Install) -> None:
    folder = fake_plugin("foo", LOSS.format(kind="magic"), requires="contralex>=0.0.1,<99")
    found = Registry().plugins["foo"].found
    assert found is not None
    assert (found.entry_point, found.requires, found.location) == ("foo = foo", "<99,>=0.0.1", str(folder))
    assert not found.editable
    (record(folder) / "direct_url.json").write_text(
        '{"url": "file:///home/me/my%20foo", "dir_info": {"editable": true}}'
    )
    found = Registry().plugins["foo"].found
    assert found is not None
    assert (found.location, found.editable) == ("/home/me/my foo", True)


def test_a_module_that_is_gone_is_a_stale_installation(fake_plugin: Install) -> None:
    (fake_plugin("foo", "") / "foo.py").unlink()
    assert state("foo") == (
        "broken",
        "its module foo is gone (No module named 'foo'), so the installation is stale: "
        "pip install --force-reinstall foo, or pip uninstall foo",
    )


def test_a_dependency_that_is_missing_is_no_stale_installation(fake_plugin: Install) -> None:
    fake_plugin("foo", "import food_for_thought")
    assert state("foo")[1] == "importing foo raised ModuleNotFoundError: No module named 'food_for_thought'"


@pytest.mark.parametrize("value", ["", "foo:attribute", "not a module", "foo [extra]"])
def test_a_malformed_entry_point(fake_plugin: Install, value: str) -> None:
    folder = fake_plugin("foo", LOSS.format(kind="magic"))
    (record(folder) / "entry_points.txt").write_text(f"[contralex]\nfoo = {value}\n")
    sentence = f"its entry point {f'foo = {value}'.strip()!r} is malformed; it is written like: name = package.module"
    assert state("foo") == ("broken", sentence)
    (record(folder) / "entry_points.txt").write_text("[contralex]\nfoo\n")
    assert "its entry point 'foo' is malformed" in state("foo")[1]


def test_malformed_lines_of_other_groups_are_none_of_ours(fake_plugin: Install) -> None:
    folder = fake_plugin("foo", LOSS.format(kind="magic"))
    (record(folder) / "entry_points.txt").write_text("[console_scripts]\nnonsense\n[contralex]\n# a\nfoo = foo\n")
    assert state("foo") == ("ready", "")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (b"Name: foo\nVersion: 1.0\nSummary: caf\xe9\n", "cannot be read (UnicodeDecodeError: "),
        (b"Version: 1.0\n", "state no name; pip install --force-reinstall foo"),
        (b"Name: foo\nVersion: 1.0\nRequires-Dist: contralex>>1\n", "cannot be read (InvalidRequirement: "),
        (None, "pip install --force-reinstall foo"),
    ],
)
def test_unreadable_metadata(fake_plugin: Install, damage: bytes | None, sentence: str) -> None:
    folder = fake_plugin("foo", LOSS.format(kind="magic"))
    if damage is None:
        (record(folder) / "METADATA").unlink()
    else:
        (record(folder) / "METADATA").write_bytes(damage)
    found, reason = state("foo")
    assert found == "broken"
    assert f"its metadata in {record(folder)} " in reason
    assert sentence in reason
    assert "magic" not in Registry().kinds("loss")


def test_bounds_behind_a_marker_count_where_it_holds(fake_plugin: Install) -> None:
    fake_plugin("foo", "1 / 0", requires='contralex<0.0.1; python_version >= "3"')
    assert state("foo")[0] == "incompatible"
    fake_plugin("bar", LOSS.format(kind="magic"), requires='contralex<0.0.1; extra == "old"')
    assert state("bar") == ("ready", "")
    fake_plugin("baz", "1 / 0", requires="Contralex<0.0.1")  # names are compared as pip compares them
    assert state("baz")[0] == "incompatible"


def test_whatever_an_import_raises_is_caught_and_what_it_prints_is_no_answer(
    fake_plugin: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_plugin("foo", "print('hello')\nclass Odd(BaseException): pass\nraise Odd('bye')")
    assert state("foo") == ("broken", "importing foo raised Odd: bye")
    assert capsys.readouterr() == ("", "hello\n")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def contralex_losses():\n    raise SystemExit(1)\n", "SystemExit: 1"),
        ("def contralex_losses():\n    return 3\n", "TypeError: 'int' object is not iterable"),
        (
            "def contralex_recipes():\n    from pathlib import Path\n    return Path('/no/where')\n",
            "FileNotFoundError: [Errno 2] No such file or directory: '/no/where'",
        ),
    ],
)
def test_a_hook_that_raises_is_that_plugins_own(fake_plugin: Install, code: str, reason: str) -> None:
    fake_plugin("foo", f"from contralex.plugin import hookimpl\n@hookimpl\n{code}")
    assert state("foo") == ("broken", reason)


def test_a_kind_twice_in_one_plugin(fake_plugin: Install) -> None:
    fake_plugin("foo", LOSS.format(kind="magic").replace("[Magic]", "[Magic, Magic]"))
    assert state("foo") == ("broken", "ContralexError: it offers loss kind 'magic' twice")


def test_two_distributions_of_one_module(fake_plugin: Install) -> None:
    folder = fake_plugin("foo", LOSS.format(kind="magic"))
    fake_plugin("new-foo", "")
    site = fake_plugin("newer-foo", "")
    (record(site, "newer_foo") / "entry_points.txt").write_text("[contralex]\nfoo = foo\n")
    assert state("foo") == ("ready", "")
    assert state("newer-foo")[1] == "its entry point names foo, as that of foo does; uninstall one of them"
    assert folder.exists()


def test_conflicts_add_up_and_blocking_keeps_what_was_blocked(fake_plugin: Install) -> None:
    two = LOSS.format(kind="magic") + "\nclass More(Spec):\n    kind: Literal['more'] = 'more'\n"
    fake_plugin("a", LOSS.format(kind="magic"))
    fake_plugin("b", two.replace("[Magic]", "[Magic, More]"))
    fake_plugin("c", LOSS.format(kind="more"))
    fake_plugin("d", LOSS.format(kind="magic"))
    found = Registry("-d")
    assert found.plugins["b"].reason == (
        "a and b both offer loss kind 'magic'; block one with CONTRALEX_PLUGINS=-d,-b; "
        "b and c both offer loss kind 'more'; block one with CONTRALEX_PLUGINS=-d,-c"
    )
    settled = Registry("-d,-b").plugins
    assert [settled[name].state for name in "abcd"] == ["ready", "blocked", "ready", "blocked"]
    assert "a and b and d all offer loss kind 'magic'" in Registry().plugins["d"].reason


def test_a_record_without_an_entry_point_shadows_one_with(fake_plugin: Install) -> None:
    fake_plugin("foo", LOSS.format(kind="magic"))
    newer = fake_plugin("foo", "", version="2.0")
    (record(newer, version="2.0") / "entry_points.txt").unlink()
    assert "foo" not in Registry().plugins


def test_doctor_finds_two_installations_and_one_that_is_shadowed(
    fake_plugin: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = fake_plugin("foo", ""), fake_plugin("Foo", "", version="2.0")
    (problem,) = health._installed_twice()
    assert problem.startswith("foo is installed 2 times, in ")
    assert f"{one} (1.0)" in problem
    assert f"{two} (2.0)" in problem
    assert list(health._shadowed()) == []
    home = fake_plugin("bar", "")
    (tmp_path / "bar.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("bar", None)
    registry.cache_clear()
    (problem,) = health._shadowed()
    assert problem.startswith(f"bar is installed in {home}, but Python imports it from {tmp_path / 'bar.py'}, which")
