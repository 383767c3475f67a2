"""Finding and reading recipes: installed ones by name, files by path, and the chain of what each extends."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from contralex.errors import ContralexError
from contralex.files import expand_user, mode
from contralex.plugins.hooks import SLOTS
from contralex.plugins.registry import Plugin, registry
from contralex.recipes import limits, yaml
from contralex.recipes.merging import Layer

_OWN = ("name", "summary", "paper")  # what a recipe says of itself; never inherited
_NOT_MERGED = ("schema", "extends", "presets", "code", *_OWN)  # each has a rule of its own
PARTS = ("method", "data", "train", "eval")
# The line by which a YAML editor finds what `contralex schema --out contralex.schema.json` wrote beside a recipe.
MODELINE = "# yaml-language-server: $schema=contralex.schema.json"


@dataclass(frozen=True)
class Recipe:
    """One document of a chain. ``label`` names it in origins, ``place`` in messages."""

    name: str
    label: str
    place: str
    data: dict[str, Any]
    lines: dict[yaml.Path, int]
    plugin: Plugin | None = None
    file: Traversable | None = None

    @property
    def presets(self) -> dict[str, Any]:
        presets: dict[str, Any] = self.data.get("presets") or {}
        return presets

    @property
    def extends(self) -> str | None:
        parent = self.data.get("extends")
        if parent is not None and not isinstance(parent, str):
            raise self.mistake("extends", "is the name of one recipe, or the path of one file")
        return parent

    def layer(self) -> Layer:
        tree = {key: value for key, value in self.data.items() if key not in _NOT_MERGED}
        return Layer(self.label, self.place, _slots_written_out(tree), self.lines)

    def preset(self, name: str) -> Layer:
        label = f"preset {name} of {self.name}"
        return Layer(label, self.place, _slots_written_out(self.presets[name]), self.lines, ("presets", name))

    def identity(self) -> Layer:
        """``schema``, and what the recipe says of itself. A file without a name is called like its file."""
        said = {key: self.data[key] for key in _OWN if self.data.get(key) is not None}
        return Layer(self.label, self.place, {"schema": 1, "name": self.name, **said}, self.lines)

    def check(self) -> None:
        schema = self.data.get("schema")
        if type(schema) is not int or schema != 1:
            problem = "must be 1, the only version there is" if "schema" in self.data else "is missing; add schema: 1"
            raise self.mistake("schema", problem)
        if not isinstance(self.presets, dict):
            raise self.mistake("presets", "is a block of presets, each with its name")
        for name, tree in self.presets.items():
            path = ("presets", name)
            if not isinstance(tree, dict):
                raise self.mistake(path, "is a block with any of " + ", ".join(PARTS))
            for key in tree:
                if key not in PARTS:
                    raise self.mistake((*path, key), f"a preset changes {', '.join(PARTS)}, not {key}")

    def mistake(self, path: str | yaml.Path, problem: str) -> ContralexError:
        path = (path,) if isinstance(path, str) else path
        line = self.lines.get(path)
        place = self.place if line is None else f"{self.place}:{line}"
        return ContralexError(f"{place}: {'.'.join(str(key) for key in path)} {problem}")


def chain(recipe_or_path: str, known: dict[str, Recipe] | None = None) -> list[Recipe]:
    """The recipe and all that it extends, the most general first.

    ``known``: installed recipes by their names, which are not read again. Those that are read are added to it.
    """
    known = {} if known is None else known
    recipe = _open(recipe_or_path, None, known)
    recipes = [recipe]
    while recipe.extends is not None:
        recipe = _open(recipe.extends, recipe, known)
        if any(_same(recipe, other) for other in recipes):
            ring = " -> ".join([*(other.name for other in recipes), recipe.name])
            raise recipes[-1].mistake("extends", f"leads back to where it began: {ring}; take one of them out")
        recipes.append(recipe)
    return recipes[::-1]


def given(mapping: Mapping[str, Any], where: str) -> list[Recipe]:
    """A chain that begins with data in memory. ``where`` they are from, for messages."""
    limits.check_data(dict(mapping), where)
    name = mapping.get("name")
    recipe = Recipe(name if isinstance(name, str) else "run", where, where, dict(mapping), {})
    recipe.check()
    return [*(chain(recipe.extends) if recipe.extends is not None else []), recipe]


def read_packed(name: str, plugin: Plugin, file: Traversable) -> Recipe:
    """A recipe that a plugin brings."""
    return _read(file, f"{name}.yaml", name, f"recipe {name} ({plugin.name} {plugin.version})", plugin)


def _open(wanted: str, child: Recipe | None, known: dict[str, Recipe]) -> Recipe:
    if not wanted.strip():
        raise ContralexError("a recipe's name is expected, or the path of a YAML file, and not an empty text")
    if wanted.endswith((".yaml", ".yml")) or "/" in wanted or "\\" in wanted:
        return _file(wanted, child)
    if wanted in known:
        return known[wanted]
    installed = registry().recipes().get(wanted)
    if installed is not None:
        known[wanted] = read_packed(wanted, *installed)
        return known[wanted]
    if child is not None:
        raise child.mistake("extends", f"cannot be followed: {registry().recipe_hint(wanted)}")
    if mode(Path(wanted)):
        return _file(wanted, None)
    raise ContralexError(registry().recipe_hint(wanted))


def _file(wanted: str, child: Recipe | None) -> Recipe:
    path = expand_user(wanted)
    if child is not None and isinstance(child.file, Path):
        path = child.file.parent / path
    elif child is not None and child.plugin is not None:
        raise child.mistake("extends", "names a file, and a packed recipe can only extend a recipe by its name")
    where = str(path)
    if stat.S_ISDIR(mode(path)):
        way = f"; give its spec: {path / 'spec.yaml'}" if (path / "spec.yaml").is_file() else "; give a YAML file in it"
        raise ContralexError(f"{where} is a folder, not a recipe{way}")
    if not stat.S_ISREG(mode(path)):
        problem = f"there is no file {_short(where)}; `contralex methods` lists the recipes that are installed"
        if child is None:
            raise ContralexError(problem)
        raise child.mistake("extends", f"names {_short(wanted)}, but {problem}")
    return _read(path, where, name_from(path.stem), f"file {where}", None)


def _read(file: Traversable, place: str, stem: str, label: str, plugin: Plugin | None) -> Recipe:
    if isinstance(file, Path) and file.stat().st_size > limits.TEXT:
        raise ContralexError(f"{place}: this has more than {limits.TEXT} bytes, too many for a recipe; shorten it")
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ContralexError(f"{place}: this is not text in UTF-8 ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise ContralexError(f"{place} cannot be read: {error.strerror or error}") from None
    document = yaml.read(text, place)
    if not isinstance(document.data, dict):
        raise ContralexError(f"{place}: a recipe is a block of keys, beginning with schema: 1")
    name = document.data.get("name")
    recipe = Recipe(name if isinstance(name, str) else stem, label, place, document.data, document.lines, plugin, file)
    recipe.check()
    return recipe


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}..."


def _same(one: Recipe, other: Recipe) -> bool:
    if isinstance(one.file, Path) and isinstance(other.file, Path):
        return one.file.resolve() == other.file.resolve()
    return one.plugin is other.plugin and one.place == other.place


def _slots_written_out(tree: dict[str, Any]) -> dict[str, Any]:
    """``loss: cosine`` is short for ``loss: {kind: cosine}``; written out, it merges and replaces like any block."""

    def written_out(block: dict[str, Any]) -> dict[str, Any]:
        return {
            key: {"kind": value} if key in SLOTS and isinstance(value, str) else value for key, value in block.items()
        }

    out = written_out(tree)
    if isinstance(out.get("method"), dict):
        method = out["method"] = written_out(out["method"])
        if isinstance(method.get("look_ups"), dict):
            method["look_ups"] = {
                name: written_out(block) if isinstance(block, dict) else block
                for name, block in method["look_ups"].items()
            }
    return out


def name_from(stem: str) -> str:
    """A run's name from its file's, where the file states none."""
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._") or "run"
