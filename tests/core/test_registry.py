"""Plugins: each works or says why not, and none takes another down."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from contralex.plugins import first_party
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


def test_the_core_is_a_plugin_of_itself() -> None:
    core = Registry().plugins["contralex"]
    assert core.state == "ready"
    assert core.version == metadata.version("contralex")
    assert Registry().find("negatives", "queue").__name__ == "QueueSpec"


def test_a_plugin_is_found_with_what_it_offers(fake_plugin: Install) -> None:
    fake_plugin("foo", LOSS.format(kind="magic"))
    found = Registry()
    assert (found.plugins["foo"].state, found.plugins["foo"].version) == ("ready", "1.0")
    assert "magic" in found.kinds("loss")
    assert found.owner("loss", "magic") is found.plugins["foo"]


def test_a_broken_import_is_that_plugins_own(fake_plugin: Install) -> None:
    fake_plugin("broken", "raise RuntimeError('no luck today')")
    fake_plugin("leaver", "raise SystemExit(3)")
    fake_plugin("foo", LOSS.format(kind="magic"))
    found = Registry()
    assert found.plugins["broken"].state == "broken"
    assert found.plugins["broken"].reason == "importing broken raised RuntimeError: no luck today"
    assert found.plugins["leaver"].reason == "importing leaver raised SystemExit: 3"
    assert found.plugins["foo"].state == "ready"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "from contralex.plugin import hookimpl\n@hookimpl\ndef contralex_lossses():\n    return []\n",
            "ContralexError: there is no hook contralex_lossses; did you mean contralex_losses?",
        ),
        (
            "from contralex.plugin import hookimpl\n@hookimpl\ndef contralex_losses():\n    return [int]\n",
            "ContralexError: contralex_losses returned <class 'int'>, which is not a subclass of contralex.plugin.Spec",
        ),
        (
            "from contralex.plugin import Spec, hookimpl\nclass A(Spec):\n    x: int\n"
            "@hookimpl\ndef contralex_losses():\n    return [A]\n",
            "ContralexError: A needs a field such as kind: Literal['my_kind'] = 'my_kind'",
        ),
        (
            "from contralex.plugin import hookimpl\n@hookimpl\ndef contralex_losses():\n    raise KeyError('x')\n",
            "KeyError: 'x'",
        ),
    ],
)
def test_a_plugin_that_does_not_keep_to_the_hooks_is_broken(fake_plugin: Install, code: str, reason: str) -> None:
    fake_plugin("foo", code)
    plugin = Registry().plugins["foo"]
    assert (plugin.state, plugin.reason) == ("broken", reason)


def test_bounds_that_exclude_this_core_are_found_before_the_import(fake_plugin: Install) -> None:
    fake_plugin("foo", "raise RuntimeError('imported')", requires="contralex<0.0.1")
    plugin = Registry().plugins["foo"]
    assert plugin.state == "incompatible"
    assert plugin.reason == f"it asks for contralex<0.0.1, and this is contralex {metadata.version('contralex')}"


def test_two_plugins_with_one_kind_conflict_and_others_go_on(fake_plugin: Install) -> None:
    for name, kind in (("foo", "magic"), ("bar", "magic"), ("other", "fine")):
        fake_plugin(name, LOSS.format(kind=kind))
    found = Registry()
    assert [found.plugins[name].state for name in ("foo", "bar", "other")] == ["conflict", "conflict", "ready"]
    sentence = "bar and foo both offer loss kind 'magic'; block one with CONTRALEX_PLUGINS=-foo"
    assert found.plugins["foo"].reason == sentence
    assert found.hint("loss", "magic") == f"no loss of kind 'magic' is installed: {sentence}"
    assert Registry("-foo").plugins["bar"].state == "ready"


def test_a_kind_of_the_cores_stays_the_cores(fake_plugin: Install) -> None:
    fake_plugin("foo", LOSS.format(kind="cosine"))
    found = Registry()
    assert found.plugins["foo"].state == "conflict"
    assert found.owner("loss", "cosine") is found.plugins["contralex"]


def test_two_entry_points_of_one_distribution_are_refused(fake_plugin: Install) -> None:
    fake_plugin("foo", LOSS.format(kind="magic"), entry="second = foo\n")
    plugin = Registry().plugins["foo"]
    assert plugin.state == "broken"
    assert "2 entry points" in plugin.reason
    assert "magic" not in Registry().kinds("loss")


def test_blocking_allowing_and_names_that_match_nothing(fake_plugin: Install) -> None:
    fake_plugin("my-foo", LOSS.format(kind="magic"))
    fake_plugin("bar", LOSS.format(kind="other"))
    blocked = Registry("-My_Foo")
    assert blocked.plugins["my-foo"].state == "blocked"
    assert blocked.plugins["my-foo"].reason == "left out by CONTRALEX_PLUGINS=-My_Foo"
    assert "other" in blocked.kinds("loss")
    allowed = Registry("my-foo, nothing, -nobody")
    assert (allowed.plugins["my-foo"].state, allowed.plugins["bar"].state) == ("ready", "blocked")
    assert allowed.unmatched == ["nobody", "nothing"]


def test_hints(monkeypatch: pytest.MonkeyPatch, fake_plugin: Install) -> None:
    fake_plugin("contralex-ill", "1 / 0")
    known = {"loss": {"wonder": "contralex-wonder", "ill": "contralex-ill", "gone": "contralex"}}
    monkeypatch.setattr(first_party, "known_kinds", lambda: known)
    monkeypatch.setattr(first_party, "known_recipes", lambda: {"wonder-v1": "contralex-wonder"})
    found = Registry("contralex-ill")
    install = "it comes with contralex-wonder: pip install contralex-wonder"
    assert found.hint("loss", "wonder") == f"no loss of kind 'wonder' is installed; {install}"
    assert found.recipe_hint("wonder-v1").endswith(f"is installed, and no such file exists; {install}")
    assert found.hint("loss", "ill") == (
        "no loss of kind 'ill' is installed: contralex-ill offers it, but is broken "
        "(importing contralex_ill raised ZeroDivisionError: division by zero)"
    )
    assert found.hint("loss", "gone").endswith("another version of contralex: pip install -U contralex")
    assert found.hint("loss", "info_nec") == "no loss of kind 'info_nec' is installed; did you mean 'info_nce'?"
    assert found.hint("loss", "xyz").endswith(
        "; there are cosine, info_nce, koleo, mean_entropy, nce, soft_cross_entropy"
    )


def test_the_registry_is_made_once_until_it_is_forgotten(fake_plugin: Install) -> None:
    first = registry()
    assert registry() is first
    fake_plugin("foo", LOSS.format(kind="magic"))
    assert "foo" not in first.plugins
    assert "foo" in registry().plugins


COMMANDS = """
from contralex.plugin import hookimpl

def greet(name: str) -> None:
    "Say hello."
    print("hello", name)

@hookimpl
def contralex_commands():
    return {{"{name}": {function}}}
"""


def test_a_plugin_brings_commands(fake_plugin: Install) -> None:
    fake_plugin("foo", COMMANDS.format(name="greet", function="greet"))
    assert list(Registry().plugins["foo"].commands) == ["greet"]
    fake_plugin("bar", COMMANDS.format(name="greet", function="greet"))
    assert "both offer command 'greet'" in Registry().plugins["bar"].reason


@pytest.mark.parametrize(
    ("name", "function", "reason"),
    [
        ("train", "greet", "its command 'train' is one of contralex's own; give it another name"),
        ("greet", "3", "contralex_commands returns a dict of functions by their names"),
    ],
)
def test_a_command_that_cannot_be(fake_plugin: Install, name: str, function: str, reason: str) -> None:
    fake_plugin("foo", COMMANDS.format(name=name, function=function))
    assert Registry().plugins["foo"].state == "broken"
    assert reason in Registry().plugins["foo"].reason
