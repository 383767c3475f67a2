"""What pydantic found wrong, in sentences: where in the spec, what, who said so, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from contralex.errors import did_you_mean, find_similar
from contralex.plugins.registry import registry
from contralex.plugins.spec import Slot, Spec
from contralex.recipes.merging import Merged, dotted
from contralex.recipes.run_spec import RunSpec
from contralex.recipes.yaml import Path

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_AT_MOST = 5
_MOST_NAMES = 60


def sentences(error: ValidationError, merged: Merged, place: str) -> str:
    """One line for each value that is wrong; ``place`` is the file to name where nobody set anything."""
    found: dict[Path, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        found.setdefault(_path(detail, merged.data), []).append(detail)
    lines = []
    for path, details in islice(found.items(), _AT_MOST):
        problems = dict.fromkeys(_problem(detail, path, merged) for detail in details)
        lines.append(_line(path, list(problems), merged, place))
    rest = len(found) - _AT_MOST
    return "\n".join(lines + ([f"and {rest} more"] if rest > 0 else []))


def taken_out(error: ValidationError, merged: Merged) -> list[Path]:
    """The nulls among what is wrong that a layer laid over a value."""
    if not merged.taken_out:
        return []
    paths = {_path(detail, merged.data) for detail in error.errors(include_url=False) if detail["type"] != "missing"}
    return [path for path in paths & merged.taken_out if isinstance(path[-1], str) and _get(merged.data, path) is None]


def _line(path: Path, problems: list[str], merged: Merged, place: str) -> str:
    if not path:  # parts that do not fit each other: a whole sentence, see contralex.recipes.compatibility
        return "; ".join(problems)
    # Where a value may be of several types, each says what it expects; what it is instead stands once, at the end.
    *others, last = problems
    tail = last[last.rfind(", not ") :]
    expected = [problem.removesuffix(tail) for problem in others] + [last]
    return f"{_brief(dotted(path))}: {_brief(', or '.join(expected))} ({place_of(path, merged, place)})"


def _brief(text: str) -> str:
    """A name that somebody wrote may be as long as a book."""
    return text if len(text) <= 600 else f"{text[:300]} ... {text[-250:]}"


def place_of(path: Path, merged: Merged, place: str) -> str:
    """Who set this value, or, for one that is missing, the block that it is missing from."""
    if path in merged.history:
        return merged.history[path][-1].place
    latest: dict[int, Path] = {}  # how many keys of the path a leaf has in common with it -> the one that was set last
    for leaf in merged.touched:
        if leaf in merged.history:
            latest |= dict.fromkeys(range(1, _common(leaf, path) + 1), leaf)
    for length in range(len(path), 0, -1):
        block = path[:length]
        for leaf in (block, (*block, "kind"), latest.get(length, block)):
            if leaf in merged.history:
                return merged.history[leaf][-1].place
    return place


def _common(one: Path, other: Path) -> int:
    """How many keys two paths have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def _path(detail: ErrorDetails, data: Any) -> Path:
    """pydantic's location without the names of the union's members that it tried."""
    path: list[str | int] = []
    node, keys = data, detail["loc"]
    for depth, key in enumerate(keys):
        is_last = depth == len(keys) - 1
        if isinstance(node, Mapping) and key in node and not (not is_last and _is_tag(key, node, tuple(path), data)):
            node = node[key]
        elif isinstance(node, list) and isinstance(key, int):
            node = node[key] if key < len(node) else None
        elif not (is_last and detail["type"] == "missing"):
            continue
        path.append(key)
    return tuple(path)


def _is_tag(key: str | int, node: Mapping[Any, Any], path: Path, data: Any) -> bool:
    """Whether a key in a location names the union's member, and not a field that is called as its own kind is.

    pydantic names the members of its own unions; those of a slot are not named.
    """
    return key == node.get("kind") and not _is_slot(_hint(path, data))


def _is_slot(hint: Any) -> bool:
    return get_origin(hint) is Annotated and any(isinstance(mark, Slot) for mark in hint.__metadata__)


def _problem(detail: ErrorDetails, path: Path, merged: Merged) -> str:
    data = merged.data
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "missing":
        if isinstance(path[-1], int):
            return "this item of the list is missing"
        owner = _get(data, path[:-1])
        needs = f"{owner['kind']} needs it" if isinstance(owner, Mapping) and "kind" in owner else "it has no default"
        return f"this is missing, and {needs}; add it"
    if kind == "extra_forbidden":
        return f"there is no such field{_of_preset(path, merged)}; {near(str(path[-1]), _fields(path[:-1], data))}"
    if kind == "union_tag_invalid":
        tags = [tag.strip("'") for tag in str(context["expected_tags"]).split(", ")]
        return f"there is no kind {context['tag']!r}; {near(str(context['tag']), tags)}"
    if kind == "union_tag_not_found":
        return f"a block with a `kind` is expected here, not {_shown(given)}; {near('', _kinds(path, data))}"
    if kind == "schedule" and isinstance(given, Mapping):
        return f"{detail['msg']}, not {repr(given['kind']) if 'kind' in given else 'a block without a `kind`'}"
    if kind == "literal_error":
        return f"must be {context['expected']}, not {_shown(given)}"
    if kind == "value_error":
        return str(context["error"])
    if kind in _BOUNDS:
        (limit,) = (value for name, value in context.items() if name in ("gt", "ge", "lt", "le"))
        return f"must be {_BOUNDS[kind]} {limit:g}, not {_shown(given)}"
    if kind in ("too_short", "too_long"):
        wanted = context.get("min_length" if kind == "too_short" else "max_length")
        return f"must have {'at least' if kind == 'too_short' else 'at most'} {wanted} item(s), not {_shown(given)}"
    if kind == "string_pattern_mismatch":
        return f"must look like {context['pattern']}, not {_shown(given)}"
    for beginning, expected in _TYPES.items():
        if kind.startswith(beginning):
            kinds = [f"{{kind: {name}}}" for name in _kinds(path, data)] if expected == _BLOCK else []
            more = " such as " + ", ".join(kinds) if kinds else ""
            return f"{expected}{more} is expected here, not {_shown(given)}"
    return detail["msg"].replace("Input should be", "must be")


def _of_preset(path: Path, merged: Merged) -> str:
    """Of a field beside a ``kind`` that a preset of another recipe chose: which, as it is not in the same file."""
    kinds, fields = (merged.history.get((*path[:-1], name)) for name in ("kind", path[-1]))
    if not kinds or not fields or kinds[-1].layer == fields[-1].layer or not kinds[-1].is_preset:
        return ""
    return f" in {_shown(kinds[-1].value)}, which {kinds[-1].layer} chose"


_BOUNDS = {
    "greater_than": "greater than",
    "greater_than_equal": "at least",
    "less_than": "less than",
    "less_than_equal": "at most",
}
_BLOCK = "a block of keys"
_TYPES = {
    "int_": "a whole number",
    "float_": "a number",
    "finite_number": "a finite number",
    "bool_": "true or false",
    "string_": "text",
    "tuple_": "a list",
    "list_": "a list",
    "dict_": _BLOCK,
    "model_": _BLOCK,
}


def near(word: str, known: list[str]) -> str:
    """The way out for a name that does not exist."""
    question = did_you_mean(find_similar(word, known))
    if question:
        return question
    more = f" and {len(known) - _MOST_NAMES} more" if len(known) > _MOST_NAMES else ""
    return (
        f"there are {', '.join(known[:_MOST_NAMES])}{more}"
        if len(known) > 1
        else f"there is only {known[0]}"
        if known
        else "there are none"
    )


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "a block of keys"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# Which fields a block may have


def _fields(path: Path, data: Any) -> list[str]:
    for option in _options(_hint(path, data), _get(data, path)):
        if isinstance(option, type) and issubclass(option, Spec):
            return [field.alias or name for name, field in option.model_fields.items()]
    return []


def _kinds(path: Path, data: Any) -> list[str]:
    options = _options(_hint(path, data), None)
    specs = (option for option in options if isinstance(option, type) and issubclass(option, Spec))
    return [spec.kind_name() for spec in specs if "kind" in spec.model_fields]


def _hint(path: Path, data: Any) -> Any:
    """The annotation of the place that a path leads to."""
    hint: Any = RunSpec
    for depth, key in enumerate(path):
        hint = next(
            (below for option in _options(hint, _get(data, path[:depth])) for below in _step(option, key)), None
        )
    return hint


def _options(hint: Any, value: Any) -> Iterator[Any]:
    """The types that a value of this annotation may have; of several specs, those of the value's kind."""
    if get_origin(hint) is Annotated:
        slots = [mark.name for mark in hint.__metadata__ if isinstance(mark, Slot)]
        kind = value.get("kind") if isinstance(value, Mapping) else None
        if slots and isinstance(kind, str):
            yield registry().find(slots[0], kind)
        else:
            yield from _options(hint.__origin__, value)
    elif get_origin(hint) in (Union, UnionType):
        for member in get_args(hint):
            yield from _options(member, value)
    elif isinstance(hint, type) and issubclass(hint, Spec) and "kind" in hint.model_fields:
        if not isinstance(value, Mapping) or value.get("kind") == hint.kind_name():
            yield hint
    else:
        yield hint


def _step(option: Any, key: str | int) -> Iterator[Any]:
    if isinstance(option, type) and issubclass(option, Spec):
        for name, field in option.model_fields.items():
            if key in (name, field.alias):
                yield Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    elif get_origin(option) is dict:
        yield get_args(option)[1]
    elif get_origin(option) in (tuple, list) and isinstance(key, int):
        yield get_args(option)[0]


def _get(data: Any, path: Path) -> Any:
    for key in path:
        try:
            data = data[key]
        except (LookupError, TypeError):
            return None
    return data
