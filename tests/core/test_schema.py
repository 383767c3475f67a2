"""The JSON Schema of a recipe: valid, as wide as what can be run, and narrow enough to show a mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import Field

from contralex.errors import ContralexError
from contralex.plugins.registry import registry
from contralex.plugins.spec import Spec
from contralex.recipes import yaml
from contralex.recipes.json_schema import recipe_schema
from contralex.recipes.layers import resolve, resolve_data
from contralex.recipes.run_spec import RunSpec

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(ROOT.glob("plugins/*/src/*/recipes/*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(recipe_schema())


def mistakes(validator: Draft202012Validator, data: Any) -> list[str]:
    return [error.json_path for error in validator.iter_errors(data)]


def test_it_is_a_json_schema(validator: Draft202012Validator) -> None:
    Draft202012Validator.check_schema(validator.schema)
    text = json.dumps(validator.schema)
    assert "x-slot" not in text
    named = set(validator.schema["$defs"])
    assert {reference.split('"')[0] for reference in text.split('"$ref": "#/$defs/')[1:]} == named


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_every_recipe_as_it_stands_and_in_full(file: Path, validator: Draft202012Validator) -> None:
    assert mistakes(validator, yaml.read(file.read_text("utf-8"), file.name).data) == []
    assert mistakes(validator, resolve(file.stem).data) == []


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_every_recipe_begins_with_the_line_that_editors_read(file: Path) -> None:
    first = file.read_text("utf-8").splitlines()[0]
    key, _, value = first.partition("=")
    assert key == "# yaml-language-server: $schema"
    assert (file.parent / value).resolve() == ROOT / "contralex.schema.json"


@pytest.mark.parametrize(
    "text",
    [
        "schema: 1",
        "{schema: 1, extends: moco-v1, method: {loss: {temperature: 0.1}}}",  # the kind stands below
        "{schema: 1, method: {loss: cosine, negatives: none}, data: digits}",
        "{schema: 1, train: {optimizer: {lr: {start: 0.1}, groups: [{match: norm_and_bias}]}}}",
        "{schema: 1, method: {loss: {kind: proximal, base: nce}}}",
        "{schema: 1, method: {encoder: {backbone: {name: resnet18}}}, presets: {quick: {train: {epochs: 1}}}}",
        "{schema: 1, method: {views: {groups: {crops: {augment: {gray: null}}}}}, eval: {knn: null}}",
        "{schema: 1, method: {views: {groups: {small: null}}}}",
        "{schema: 1, method: {encoder: {projector: null}}, train: {optimizer: {scaling: null}}}",  # taken out
    ],
)
def test_layers_that_leave_things_out(text: str, validator: Draft202012Validator) -> None:
    assert mistakes(validator, yaml.read(text, "x").data) == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{extends: moco-v1}", "$"),
        ("{schema: 2}", "$.schema"),
        ("{schema: 1, trian: {}}", "$"),
        ("{schema: 1, train: {epochs: 0}}", "$.train.epochs"),
        ("{schema: 1, train: {epoch: 1}}", "$.train"),
        ("{schema: 1, method: {loss: {kind: cosine, temperature: 0.1}}}", "$.method.loss"),
        ("{schema: 1, method: {loss: {kind: cosin}}}", "$.method.loss"),
        ("{schema: 1, method: {loss: cosin}}", "$.method.loss"),
        ("{schema: 1, method: {negatives: {kind: queue, size: 0}}}", "$.method.negatives"),
        ("{schema: 1, method: {negatives: {size: few}}}", "$.method.negatives"),
        ("{schema: 1, method: {loss: {base: cosin}}}", "$.method.loss"),
        ("{schema: 1, method: {encoder: {projector: [{bias: true}]}}}", "$.method.encoder"),  # a list is whole
        ("{schema: 1, train: {optimizer: {lr: {kind: linear, at: [1]}}}}", "$.train.optimizer"),
        ("{schema: 1, presets: {quick: {name: x}}}", "$.presets.quick"),
        ("{schema: 1, train: {epochs: null}}", "$.train.epochs"),  # which has no default to come back
        ("{schema: 1, presets: {quick: {eval: {knn: {k: -1}}}}}", "$.presets.quick.eval.knn"),
    ],
)
def test_mistakes_show(text: str, place: str, validator: Draft202012Validator) -> None:
    assert mistakes(validator, yaml.read(text, "x").data) == [place]


def test_whatever_the_schema_refuses_a_run_refuses(validator: Draft202012Validator) -> None:
    """Each number of a recipe, far below and above what it was: the schema's bounds are those of the specs."""
    whole = resolve("moco-v2").data
    found = 0
    for path, value in _numbers(whole):
        for wrong in (value - 1e9, value + 1e9):
            data = json.loads(json.dumps(whole))
            node = data
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = wrong
            if mistakes(validator, data):
                found += 1
                with pytest.raises(ContralexError):
                    resolve_data(data)
    assert found > 20


def _numbers(value: Any, path: tuple[Any, ...] = ()) -> Any:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(item, (*path, key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def test_fields_say_what_their_docstrings_say(validator: Draft202012Validator) -> None:
    known = validator.schema["$defs"]
    assert known["Crop"]["properties"]["size"]["description"] == "Pixels of a side after resizing."
    assert known["TrainSpec"]["properties"]["clip"]["description"].startswith("The largest norm of the gradient")
    assert known["MemoryBankSpec"]["properties"]["momentum"]["description"].startswith("The weight of the stored")
    assert known["SGD"]["properties"]["lr"]["description"].startswith("The learning rate before scaling")  # inherited


def test_every_field_of_every_kind_is_described() -> None:
    specs = {RunSpec, *(spec for plugin in registry().plugins.values() for of in plugin.kinds.values() for spec in of)}
    blocks = {}
    for spec in specs:
        schema = spec.model_json_schema()
        blocks |= {**schema.get("$defs", {}), f"{spec.__module__}.{spec.__name__}": schema}
    fields = [(block, name) for block, of in blocks.items() for name in of.get("properties", {}) if name != "kind"]
    assert len(fields) > 200
    assert [field for field in fields if not blocks[field[0]]["properties"][field[1]].get("description")] == []


def test_a_docstring_under_a_field_is_that_fields() -> None:
    class Outer(Spec):
        first: int = 1
        """Of the first."""
        second: int = Field(2, description="said in the field")
        """Not shown."""
        third: int = 3

    class Inner(Outer):
        """A class of its own."""

        third: int = 4
        """Two lines
        become one."""

    shown = Inner.model_json_schema()["properties"]
    assert [shown[name].get("description") for name in ("first", "second", "third")] == [
        "Of the first.",
        "said in the field",
        "Two lines become one.",
    ]
    assert "description" not in Outer.model_json_schema()["properties"]["third"]


def test_a_plugins_kinds_are_in_it_with_fields_of_one_name(fake_plugin: Callable[..., Path]) -> None:
    code = """
    from typing import Annotated, Literal
    from pydantic import Field
    from contralex.plugin import Slot, Spec, hookimpl

    class Layer(Spec):
        depth: int = Field(gt=3)

    class Twice(Spec):
        "A loss of losses, of its own slot."
        kind: Literal["twice"] = "twice"
        first: Annotated[Spec, Slot("loss")]
        rest: tuple[Annotated[Spec, Slot("loss")], ...] = ()
        layer: Layer

    @hookimpl
    def contralex_losses():
        return [Twice]
    """
    fake_plugin("foo", code)
    validator = Draft202012Validator(recipe_schema())
    Draft202012Validator.check_schema(validator.schema)

    def loss(text: str) -> list[str]:
        return mistakes(validator, {"schema": 1, "method": {"loss": yaml.read(text, "x").data}})

    assert loss("{kind: twice, first: {kind: twice, first: cosine}, layer: {depth: 4}}") == []
    assert loss("{first: {temperature: 1}}") == []
    assert loss("{kind: twice, rest: [cosine, {kind: nce, temperature: 1}]}") == []
    assert loss("{kind: twice, rest: [{temperature: 1}]}") == ["$.method.loss"]
    assert loss("{kind: twice, layer: {depth: 3}}") == ["$.method.loss"]
    assert loss("{kind: twice, layer: {width: 4}}") == ["$.method.loss"]  # which is the field of the core's Layer


def test_what_is_blocked_is_not_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRALEX_PLUGINS", "-contralex-swav")
    registry.cache_clear()
    try:
        schema = recipe_schema()
    finally:
        registry.cache_clear()
    assert "cluster_classifier" not in json.dumps(schema)
    assert "contralex-swav" not in schema["$comment"]
