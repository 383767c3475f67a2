"""From a recipe's layers to one resolved run, in which every leaf knows where it comes from.

Lowest first: the recipes of the chain of ``extends`` from the oldest on, the file last, each with its own preset right
after it -> ``--data`` -> ``--set``. So a file beats what it extends, presets included.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from contralex.errors import ContralexError
from contralex.plugins.discovery import normal
from contralex.plugins.hooks import SLOTS
from contralex.plugins.registry import Plugin, registry
from contralex.plugins.spec import Spec
from contralex.recipes import code_files, data_option, limits, yaml
from contralex.recipes.documents import Recipe, chain, given
from contralex.recipes.merging import Layer, Merged, Origin, dotted, leaves
from contralex.recipes.paths import anchored, local_paths
from contralex.recipes.plugin_use import find_plugin
from contralex.recipes.run_spec import RunSpec, TrainSpec
from contralex.recipes.validation_messages import near, place_of, sentences, taken_out
from contralex.recipes.walk import walk

_FOR_PEOPLE = ("name", "summary", "paper")  # not part of what is run
# Of `train`: what becomes of a failed hook, which checkpoints are kept, and how the machine computes. A resumed run may
# have others.
NOT_COMPUTED = ("on_hook_error", "on_bad_loss", "checkpoint", "threads", "channels_last", "compile", "cache")
_IF_ANY = (*_FOR_PEOPLE, "code", "plugins", "init")  # not written where it says nothing
# No part of the digest where they have their defaults, so that runs have the digest that they had before these fields.
_ADDED = ("micro_batch", "accumulate")


@dataclass(frozen=True, repr=False)
class Resolved:
    """A run that is ready to be built: validated, complete with defaults, and every leaf's history.

    ``origins``: a leaf's path -> the layers that set it, lowest first; the last one holds. ``digest`` is the same
    for the same run, whatever it is called. ``plugins``: the distributions that the run needs, with their versions.
    ``code``: the files that it needs, with their SHA-256.
    """

    run: RunSpec
    data: dict[str, Any]
    origins: dict[str, list[Origin]]
    digest: str
    plugins: dict[str, str]
    code: dict[str, str]

    def __repr__(self) -> str:
        plugins = ", ".join(f"{name} {version}" for name, version in self.plugins.items())
        return f"Resolved {self.run.name}\n  digest {self.digest}\n  plugins {plugins}"

    def anchored(self) -> Resolved:
        """With whole paths, as a run stores them. The digest is the same."""
        run = anchored(self.run)
        return replace(self, run=run, data=_data(run), digest=_digest(run)) if run is not self.run else self

    def to_yaml(self) -> str:
        """The resolved text: it extends nothing, and can be run again by its path."""
        return yaml.dump(self.data)


def resolve(
    recipe_or_path: str,
    *,
    preset: str | None = None,
    data: str | None = None,
    sets: Sequence[str] = (),
    allow_code: bool = False,
    presets_of_its_name: bool = False,
) -> Resolved:
    """A recipe by its name, or a file by its path, with the layers of the command line above it.

    ``allow_code``: the Python files that it names in ``code`` may be run; else such a recipe is refused.
    ``presets_of_its_name``: a run's ``spec.yaml``, which has no presets, offers those of the recipe it is named after.
    """
    with code_files.permission(allow_code):
        recipes = chain(recipe_or_path)
        name = recipes[-1].name
        named_after = chain(name) if presets_of_its_name and name in registry().recipes() else None
        return _resolve(recipes, preset, data, sets, named_after)


def resolve_data(
    mapping: Mapping[str, Any],
    *,
    preset: str | None = None,
    data: str | None = None,
    sets: Sequence[str] = (),
    allow_code: bool = False,
    where: str = "the spec",
) -> Resolved:
    """The same for data that is already read: a dict, or the spec that a checkpoint holds."""
    with code_files.permission(allow_code):
        return _resolve(given(mapping, where), preset, data, sets)


def _resolve(
    recipes: list[Recipe],
    preset: str | None,
    data: str | None,
    sets: Sequence[str],
    named_after: list[Recipe] | None = None,
) -> Resolved:
    if preset is not None:
        _check_preset(named_after or recipes, preset)
    hashes = code_files.use([file for recipe in recipes for file in code_files.of(recipe)])
    merged = _merged(recipes, preset, hashes)
    merged.lay(recipes[-1].identity())
    if preset is not None and named_after is not None:
        merged.lay(_holding(named_after, preset))
    if data is not None:
        merged.lay(Layer("--data", "--data", {"data": data_option.block(data, merged.data)}))
    # A new kind drops its block's keys, so it comes before the keys that are set beside it.
    for text in sorted(sets, key=lambda text: not _split(text)[0].endswith(".kind")):
        path, value = _split(text)
        merged.set(path.split("."), _value(path, value), Layer("--set", "--set", {}))
    return _validated(merged, recipes)


def _merged(recipes: list[Recipe], preset: str | None, hashes: Mapping[str, str]) -> Merged:
    """The recipes of a chain, each with its own preset right after it."""
    merged = Merged()
    for recipe in recipes:
        merged.lay(recipe.layer())
        merged.lay(_code(recipe, merged, hashes))
        if preset is not None and preset in recipe.presets:
            merged.lay(recipe.preset(preset))
    return merged


def _check_preset(recipes: list[Recipe], name: str) -> None:
    there = sorted({known for recipe in recipes for known in recipe.presets})
    if name not in there:
        raise ContralexError(f"--preset {name}: {recipes[-1].name} has no preset of this name; {near(name, there)}")


def _holding(recipes: list[Recipe], preset: str) -> Layer:
    """What the presets of a chain say and no later recipe of it overrules, as one layer over a run's own spec."""
    merged = _merged(recipes, preset, {})
    labels = {recipe.preset(preset).label for recipe in recipes if preset in recipe.presets}

    def is_held(path: yaml.Path) -> bool:
        return path in merged.history and merged.history[path][-1].layer in labels

    def held(value: Any, path: yaml.Path) -> Any:
        if isinstance(value, dict) and value:
            if is_held((*path, "kind")):  # and so all of its block
                return value
            inside = {key: held(item, (*path, key)) for key, item in value.items()}
            return {key: item for key, item in inside.items() if item is not _NOTHING} or _NOTHING
        leaf = next(path for path, _ in leaves(value, path))  # a list is set as a whole
        return value if is_held(leaf) else _NOTHING

    found = held(merged.data, ())
    return Layer(f"preset {preset} of {recipes[-1].name}", "--preset", {} if found is _NOTHING else found)


_NOTHING = object()


def _code(recipe: Recipe, merged: Merged, hashes: Mapping[str, str]) -> Layer:
    """What a recipe's ``code`` adds: the parts of the parent's files are still there, and still used."""
    own = [{"file": str(file.path), "sha256": hashes[str(file.path)]} for file in code_files.of(recipe)]
    if not own:
        return Layer(recipe.label, recipe.place, {})
    before = merged.data.get("code", [])
    both = before + [entry for entry in own if entry not in before]
    line = recipe.lines.get(("code",))
    lines: dict[yaml.Path, int] = {path: line for path, _ in leaves(both, ("code",)) if line is not None}
    return Layer(recipe.label, recipe.place, {"code": both}, lines)


def _split(text: str) -> tuple[str, str]:
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not path:
        raise ContralexError(f"--set {text}: write it as path=value, such as --set train.epochs=10")
    if path.count(".") >= limits.DEPTH:
        raise ContralexError(limits.too_deep(f"--set {path[:60]}..."))
    if not all(path.split(".")):
        raise ContralexError(f"--set {text}: a path is names with one dot between them, such as train.epochs")
    if path.split(".")[0] in ("schema", "extends", "presets", "code"):
        raise ContralexError(f"--set {text}: {path.split('.')[0]} can only stand in a file; set a value of the run")
    return path, value


def _value(path: str, text: str) -> Any:
    value = yaml.read(text, f"--set {path}={text}", is_file=False).data
    return {"kind": value} if _is_slot(path) and isinstance(value, str) else value  # as in a file: loss: cosine


def _is_slot(path: str) -> bool:
    *above, last = path.split(".")
    in_look_up = above[:2] == ["method", "look_ups"] and len(above) == 3
    return path == "data" or (last in SLOTS and (above == ["method"] or in_look_up))


def _validated(merged: Merged, recipes: list[Recipe]) -> Resolved:
    run = _run(merged, recipes[-1].place)
    data = _data(run)
    _no_disguise(data, merged, recipes[-1].place)
    named = [_named(use.name, place_of(("plugins",), merged, recipes[-1].place)) for use in run.plugins]
    plugins = {plugin.name: plugin.version for plugin in _plugins(run, recipes, named)}
    hashes = {file.file: file.sha256 for file in run.code}
    return Resolved(run, data, _origins(run, data, merged), _digest(run), plugins, hashes)


def _data(run: RunSpec) -> dict[str, Any]:
    data = _ordered(run.model_dump(mode="json", by_alias=True))
    return {key: value for key, value in data.items() if value or key not in _IF_ANY}


def _run(merged: Merged, place: str) -> RunSpec:
    """Where a field takes no ``null``, one that was laid over a value takes the value out: the default is back."""
    while True:
        try:
            return RunSpec.model_validate(merged.data)
        except ValidationError as error:
            nulls = taken_out(error, merged)
            if not nulls:
                raise ContralexError(sentences(error, merged, place)) from None
        for path in nulls:
            merged.drop(path)


def _no_disguise(data: dict[str, Any], merged: Merged, place: str) -> None:
    """pydantic reads ``true`` as the number 1, and takes infinity; here they are mistakes."""
    for path, value in leaves(data):
        given = merged.history[path][-1].value if path in merged.history else value
        if isinstance(given, bool) and not isinstance(value, bool):
            raise ContralexError(
                f"{dotted(path)}: a number is expected here, not {str(given).lower()} ({place_of(path, merged, place)})"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise ContralexError(
                f"{dotted(path)}: a finite number is expected here, not {value} ({place_of(path, merged, place)})"
            )


def _ordered(value: Any) -> Any:
    """The same data with each block's ``kind`` first."""
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value, key=lambda key: key != "kind")}
    return [_ordered(item) for item in value] if isinstance(value, list) else value


def _digest(run: RunSpec) -> str:
    """Keys stay in the spec's order, not the alphabet's, because the order of groups of views numbers the views.

    Where the data lie is no part of it, for they may be moved. Which data they were, a checkpoint says beside it.
    """
    data = _without_added(run, _data(run))
    told = {key: value for key, value in data.items() if key not in _FOR_PEOPLE}
    told["train"] = {
        key: value
        for key, value in data["train"].items()
        if key not in NOT_COMPUTED and not (key in _ADDED and value == TrainSpec.model_fields[key].default)
    }
    if "code" in told:  # what the files say, and not where they lie
        told["code"] = [file["sha256"] for file in told["code"]]
    for *above, name in local_paths(run.data):
        block = told["data"]
        for key in above:
            block = block[key]
        del block[name]
    return hashlib.sha256(json.dumps(told, separators=(",", ":"), ensure_ascii=True).encode()).hexdigest()


def _without_added(value: Any, data: Any) -> Any:
    """The data of a spec without those fields that were added to a kind later, where they have their defaults."""
    if isinstance(value, Spec) and isinstance(data, dict):
        fields = type(value).model_fields
        names = {field.serialization_alias or field.alias or name: name for name, field in fields.items()}
        return {
            key: _without_added(getattr(value, names[key]), inner)
            for key, inner in data.items()
            if not _is_added(value, names[key])
        }
    if isinstance(value, dict) and isinstance(data, dict):
        return {key: _without_added(value[key], inner) for key, inner in data.items()}
    if isinstance(value, list | tuple) and isinstance(data, list):
        return [_without_added(item, inner) for item, inner in zip(value, data, strict=True)]
    return data


def _is_added(spec: Spec, name: str) -> bool:
    return name in spec.added and getattr(spec, name) == type(spec).model_fields[name].default


def _origins(run: RunSpec, data: dict[str, Any], merged: Merged) -> dict[str, list[Origin]]:
    origins: dict[str, list[Origin]] = {}
    for path, value in leaves(data):
        # `inner: cosine` was read as `inner: {kind: cosine}`: who said the one said the other.
        history = merged.history.get(path) or (path[-1:] == ("kind",) and merged.history.get(path[:-1])) or []
        is_said = history and not (path in merged.taken_out and value is not None)
        origins[dotted(path)] = history if is_said else [*history, _default(run, path, value)]
    return origins


def unwritten_defaults(resolved: Resolved) -> dict[str, list[Origin]]:
    """The origins of fields that are not written into a resolved spec where they have their defaults."""
    paths = {"", *(path[:end] for path in resolved.origins for end in _ends(path))}
    found = {}
    for block, spec in walk(resolved.run):
        if not isinstance(spec, Spec) or block not in paths:
            continue
        for name, field in type(spec).model_fields.items():
            path, value = (f"{block}.{name}" if block else name), getattr(spec, name)
            if path not in paths and value == field.get_default(call_default_factory=True):
                found[path] = [_default(resolved.run, tuple(path.split(".")), value)]
    return found


def _ends(path: str) -> Iterator[int]:
    """Where the blocks end that a leaf lies in, and where it ends itself."""
    yield from (at for at, sign in enumerate(path) if sign == ".")
    yield len(path)


def _default(run: RunSpec, path: yaml.Path, value: Any) -> Origin:
    owner: Any = run
    node: Any = run
    for key in path[:-1]:
        if isinstance(node, Spec):
            node = getattr(node, str(key))
        else:
            node = node[int(key) if isinstance(node, tuple | list) else key]
        owner = node if isinstance(node, Spec) else owner
    label = f"default of {getattr(owner, 'kind', type(owner).__name__)}"
    return Origin(label, label, None, value)


def _named(name: str, place: str) -> Plugin:
    """A plugin that takes part because the spec names it."""
    plugin = find_plugin(name)
    if plugin is None:
        known = [normal(each) for each, plugin in registry().plugins.items() if not plugin.code]
        raise ContralexError(
            f"plugins names {name}, and no plugin of this name is installed: pip install {name}, "
            f"or take it out; {near(normal(name), known)} ({place})"
        )
    if not plugin.usable:
        raise ContralexError(f"plugins names {name}, which is {plugin.state}: {plugin.reason} ({place})")
    return plugin


def _plugins(run: RunSpec, recipes: list[Recipe], named: list[Plugin]) -> list[Plugin]:
    """In the order of their names, the core first: owners of the kinds, wherever they stand, and of the recipes,
    and those that the spec names."""
    owners = registry().owners()
    used = {owner.name: owner for _, spec in walk(run) if (owner := owners.get(type(spec))) is not None}
    used = {name: owner for name, owner in used.items() if not owner.code}
    used |= {plugin.name: plugin for plugin in named}
    used |= {recipe.plugin.name: recipe.plugin for recipe in recipes if recipe.plugin is not None}
    return [used[name] for name in sorted(used, key=lambda name: (name != "contralex", name))]
