"""Checks on a kind: its spec class, before anything is built."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import PydanticOmit

from contralex.plugins import building
from contralex.plugins.spec import Spec
from contralex.recipes import yaml
from contralex.testing.check_errors import Failed
from contralex.testing.plugin_contents import Kind

_SAYS_WHAT = {"type", "$ref", "enum", "const", "anyOf", "oneOf", "allOf"}
_FAR = 1e15  # no field of a spec means anything so large


def documented(kind: Kind) -> None:
    """The spec class has a docstring of its own, which is what users read about the kind."""
    if not (kind.cls.__dict__.get("__doc__") or "").strip():
        raise Failed(f"the class {kind.cls.__name__} has no docstring")


def cites_a_source(kind: Kind) -> None:
    """``source`` names the paper and the equation, or the code, that the part implements."""
    if not kind.cls.source.strip():
        raise Failed(f"{kind.cls.__name__}.source is empty; name the paper and the equation, or where the idea is from")


def bounded(kind: Kind) -> None:
    """Every number has a bound: a value that cannot be meant is refused when the spec is read."""
    example = kind.example().model_dump(mode="json")
    loose = [
        ".".join(map(str, path))
        for path, value in _numbers(example, _optional(kind.cls, example))
        if all(_accepts(kind.cls, _with(example, path, far)) for far in (_far(value), -_far(value)))
    ]
    if loose:
        raise Failed(
            f"{', '.join(loose)} {'take' if len(loose) > 1 else 'takes'} any number; bound with Field(ge=..., le=...) "
            "or a validator, and what is inside a list with tuple[Annotated[float, Field(ge=..., le=...)], ...]"
        )


def part_takes_the_fields(kind: Kind) -> None:
    """The part that ``builds`` names takes every field of the spec as a keyword argument."""
    try:
        part = building.part_of(kind.cls)
    except (TypeError, ImportError) as error:
        raise Failed(str(error)) from None
    parameters = inspect.signature(part).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    taken = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    ignored = [name for name in kind.cls.model_fields if name not in ("kind", *taken)]
    if ignored:
        raise Failed(
            f"{part.__name__} takes no {' and no '.join(ignored)}, and {kind.cls.__name__} has "
            f"{'such fields' if len(ignored) > 1 else 'such a field'}; add an argument of that name to {part.__name__}"
        )


def round_trip(kind: Kind) -> None:
    """The spec is the same after it was written as JSON or YAML and read again."""
    spec = kind.example()
    plain = spec.model_dump(mode="json")
    try:
        text = json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Failed(f"{plain} cannot be written as JSON: {error}") from None
    for name, back in (
        ("JSON", json.loads(text)),
        ("YAML", yaml.read(yaml.dump({"spec": plain}), "the example").data["spec"]),
    ):
        if kind.cls.model_validate(back) != spec:
            raise Failed(f"through {name} the spec {plain} becomes {back}")
    if kind.example().model_dump(mode="json") != plain:
        raise Failed("the same values make another spec the second time; is a default drawn or counted?")


def json_schema(kind: Kind) -> None:
    """The class has a valid JSON Schema, which its example satisfies, so that YAML editors can complete its fields."""
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
    from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]
    from jsonschema.exceptions import ValidationError as Misfit

    try:
        schema = kind.cls.model_json_schema()
    except (PydanticInvalidForJsonSchema, PydanticOmit) as error:
        raise Failed(f"it has no JSON Schema: {str(error).splitlines()[0]}; a spec holds plain data") from None
    anything = [name for name, field in schema.get("properties", {}).items() if not field.keys() & _SAYS_WHAT]
    if anything:
        raise Failed(f"its JSON Schema says nothing of {', '.join(anything)}; give the field a type")
    try:
        Draft202012Validator.check_schema(schema)
        Draft202012Validator(schema).validate(kind.example().model_dump(mode="json"))
    except (SchemaError, Misfit) as error:
        raise Failed(f"{error.json_path}: {error.message}") from None


_Path = tuple[str | int, ...]


def _numbers(value: Any, optional: dict[str, float], path: _Path = ()) -> Iterator[tuple[_Path, float]]:
    """Every number in plain data, with its path, and every field that is null and could hold a number."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, {}, (*path, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _numbers(inner, {}, (*path, number))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value
    yield from (((*path, name), number) for name, number in optional.items())


def _optional(cls: type[Spec], example: dict[str, Any]) -> dict[str, float]:
    """The fields that are null in the example, and accept a one."""
    empty = [name for name, value in example.items() if value is None]
    return {name: one for name in empty for one in (1.0, 1) if _accepts(cls, {**example, name: one})}


def _with(values: Any, path: _Path, number: float) -> Any:
    """A copy of plain data with another number at this path."""
    if not path:
        return number
    made: Any = dict(values) if isinstance(values, dict) else list(values)
    made[path[0]] = _with(values[path[0]], path[1:], number)
    return made


def _far(value: float) -> float:
    return int(_FAR) if isinstance(value, int) else _FAR


def _accepts(cls: type[Spec], values: dict[str, Any]) -> bool:
    try:
        cls.model_validate(values)
    except ValidationError:
        return False
    return True
