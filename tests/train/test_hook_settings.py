"""Hooks with settings and a state, and which hooks take part."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator

from contralex.cli.plugins import show
from contralex.errors import ContralexError
from contralex.plugins.registry import registry
from contralex.recipes.json_schema import recipe_schema
from contralex.recipes.layers import resolve, resolve_data
from contralex.training.checkpoints.read import open_checkpoint
from contralex.training.run import train
from contralex.training.stop_errors import HookFailed
from tests.train.tiny import TINY

Install = Callable[..., Path]
PATIENT = """
import torch
from pydantic import Field
from contralex.plugin import Spec, hookimpl

class Patience(Spec):
    patience: int = Field(gt=0, le=1000)
    decay: float = Field(0.5, ge=0, le=1)

@hookimpl
def contralex_settings():
    return Patience

@hookimpl
def contralex_run_start(state):
    state.setdefault("starts", [])
    state["starts"] = [*state["starts"], len(state["starts"])]

@hookimpl
def contralex_step_end(run, metrics, settings, state):
    weight = next(iter(run.method.encoder.parameters())).detach()
    average = state.get("average", torch.zeros_like(weight))
    state["average"] = settings.decay * average + (1 - settings.decay) * weight
    state["steps"] = state.get("steps", 0) + 1
    metrics["average"] = state["average"].sum()
    if state["steps"] == settings.patience:
        run.stop("patience is over")
"""


def tiny(images: Path, *sets: str) -> Any:
    kept = ["train.checkpoint={every_steps: 4, keep_last: 9}"]
    return resolve("simclr-v1", preset="digits", data=str(images), sets=[*TINY, *kept, *sets])


def averages(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["average"] for line in lines if "loss" in line]


def test_settings_are_complete_in_the_resolved_spec(images: Path, fake_plugin: Install) -> None:
    fake_plugin("foo", PATIENT)
    resolved = tiny(images, "plugins=[{name: foo, patience: 3}]")
    assert resolved.data["plugins"] == [{"name": "foo", "patience": 3, "decay": 0.5}]
    assert resolve_data(resolved.data).digest == resolved.digest
    assert tiny(images, "plugins=[{name: foo, patience: 4}]").digest != resolved.digest
    assert resolved.run.plugins[0].settings.patience == 3
    assert "plugins" not in tiny(images).data


def test_settings_are_shown_and_stand_in_the_schema(fake_plugin: Install, capsys: pytest.CaptureFixture[str]) -> None:
    fake_plugin("foo", PATIENT)
    show("foo", as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert [(row["field"], row["bounds"], row["default"]) for row in facts["settings"]] == [
        ("patience", "> 0, ≤ 1000", "required"),
        ("decay", "≥ 0, ≤ 1", "0.5"),
    ]
    show("foo")
    assert "patience" in capsys.readouterr().out
    validator = Draft202012Validator(recipe_schema())
    recipe = resolve("simclr-v1", preset="digits").data
    for plugins, is_right in (
        (["foo"], True),
        ([{"name": "foo", "patience": 3}], True),
        ([{"name": "foo", "patience": 0}], False),
        ([{"name": "foo", "patiense": 3}], False),
        ([{"name": "bar", "patience": 3}], False),
    ):
        assert validator.is_valid({**recipe, "plugins": plugins}) == is_right, plugins


@pytest.mark.parametrize(
    ("plugins", "sentence"),
    [
        ("[foo]", "plugins.0.patience: this is missing, and it has no default"),
        ("[{name: foo, patience: 0}]", "plugins.0.patience: must be greater than 0, not 0"),
        ("[{name: foo, patience: 3, patiense: 4}]", "plugins.0.patiense"),
        ("[{patience: 3}]", "the name of a plugin is expected here"),
        ("[{name: foo, patience: 3}, {name: Foo, patience: 4}]", "plugins names Foo twice, with different settings"),
        (
            "[{name: contralex-moco, size: 3}]",
            "contralex-moco has no settings, and here are size; write its name alone",
        ),
        ("[{name: fooo, patience: 3}]", "plugins names fooo, and no plugin of this name is installed"),
    ],
)
def test_settings_that_are_wrong(images: Path, fake_plugin: Install, plugins: str, sentence: str) -> None:
    fake_plugin("foo", PATIENT)
    with pytest.raises(ContralexError) as error:
        tiny(images, f"plugins={plugins}")
    assert sentence in str(error.value)


def test_a_hook_has_its_settings_and_its_state_goes_on_after_a_resume(
    images: Path, fake_plugin: Install, tmp_path: Path
) -> None:
    fake_plugin("foo", PATIENT)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    resolved = tiny(images, "plugins=[{name: foo, patience: 9}]")
    results = train(resolved, whole)
    assert (results["steps"], results["stopped"]) == (9, {"by": "foo", "reason": "patience is over"})
    kept = open_checkpoint(whole).state.hooks
    assert kept == {"foo": {"starts": [0], "steps": 9}}

    shutil.copytree(whole, resumed)
    for step in (8, 9):
        shutil.rmtree(resumed / "checkpoints" / f"step-{step}")
    (resumed / "checkpoints" / "last").write_text("step-4\n")
    assert train(resolved, resumed, resume=True)["steps"] == 9  # and not 4 + 9
    one, other = open_checkpoint(whole), open_checkpoint(resumed)
    assert other.state.hooks == {"foo": {"starts": [0, 1], "steps": 9}}
    first, second = (each.tensors("optimizer.safetensors", prefix="hooks/") for each in (one, other))
    assert list(first) == list(second) == ["hooks/foo/average"]
    assert torch.equal(first["hooks/foo/average"], second["hooks/foo/average"])
    assert averages(whole)[:2] == averages(resumed)[:2]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("{1, 2}", "its state cannot be saved: Object of type set is not JSON serializable"),
        ("(1, 2)", "its state cannot be saved: JSON would change its values; keep texts as keys"),
        ("float('nan')", "its state cannot be saved"),
    ],
)
def test_state_that_cannot_be_saved_is_the_plugins_failure(
    images: Path, fake_plugin: Install, tmp_path: Path, value: str, sentence: str
) -> None:
    code = "from contralex.plugin import hookimpl\n@hookimpl\ndef contralex_step_end(state):\n    "
    fake_plugin("foo", code + f"state['mine'] = {value}\n")
    with pytest.raises(HookFailed) as error:
        train(tiny(images, "plugins=[foo]"), tmp_path / "run")
    assert f"the plugin foo failed: {sentence}" in str(error.value)
    assert open_checkpoint(tmp_path / "run").state.hooks == {}


KINDS = """
from typing import Literal
from contralex.plugin import Spec, hookimpl
called = []

class One(Spec):
    kind: Literal["one"] = "one"
    builds = "contralex.plugin:InfoNCE"
    temperature: float = 0.2
    needs = {"targets": frozenset({"index"}), "negatives": frozenset({"entries"})}

class Other(One):
    kind: Literal["other"] = "other"

class Settings(Spec):
    note: str = "none"

@hookimpl
def contralex_settings():
    return Settings

@hookimpl
def contralex_losses():
    return [One, Other]

@hookimpl(kinds=(One,))
def contralex_run_start(settings):
    called.append(("start", settings.note))

@hookimpl
def contralex_run_end(settings):
    called.append(("end", settings.note))
"""


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (["method.loss={kind: one}"], [("start", "none")]),
        (["method.loss={kind: other}"], []),
        (["method.loss={kind: other}", "plugins=[foo]"], [("start", "none"), ("end", "none")]),
        (["plugins=[{name: foo, note: hello}]"], [("start", "hello"), ("end", "hello")]),
    ],
)
def test_a_hook_takes_part_where_it_is_named_or_its_own_kind_is_used(
    images: Path, fake_plugin: Install, tmp_path: Path, sets: list[str], expected: list[tuple[str, str]]
) -> None:
    fake_plugin("foo", KINDS)
    train(tiny(images, "train.epochs=1", *sets), tmp_path / "run")
    module = registry().plugins["foo"].module
    assert module is not None and module.called == expected


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "@hookimpl\ndef contralex_settings():\n    return 3\n",
            "contralex_settings returned 3, which is not a",
        ),
        (
            "class Bad(Spec):\n    name: str = ''\n@hookimpl\ndef contralex_settings():\n    return Bad\n",
            "Bad has a field name, which settings cannot have; call it something else",
        ),
        (
            "@hookimpl(kinds=(Spec,))\ndef contralex_losses():\n    return []\n",
            "contralex_losses has kinds, which only life-cycle hooks have",
        ),
        (
            "@hookimpl(uses_encoders=False)\ndef contralex_epoch_end():\n    pass\n",
            "contralex_epoch_end has uses_encoders, which only contralex_step_end has",
        ),
    ],
)
def test_a_plugin_that_declares_it_wrongly_is_broken(fake_plugin: Install, code: str, reason: str) -> None:
    fake_plugin("foo", f"from contralex.plugin import Spec, hookimpl\n{code}")
    plugin = registry().plugins["foo"]
    assert plugin.state == "broken" and reason in plugin.reason
