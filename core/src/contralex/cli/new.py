"""``contralex new``: a complete package, from the templates beside this file, for an author to edit.

A template is the file itself, valid Python where it is Python. Five words stand for what differs: NAME
(``my-method``), IDENTIFIER (``my_method``), WHAT (``a loss``), and LOWEST and NEXT, the bounds of the core's version.
A package of one part is two folders of templates as they are: ``package`` and the part's. One of several parts is
composed from theirs.
"""

from __future__ import annotations

import keyword
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from contralex.cli.composing.package import compose
from contralex.cli.composing.parts import Start, complete_starts, describe, read_starts, slots_of
from contralex.cli.options import path as path_of
from contralex.errors import ContralexError

_TEMPLATES = resources.files("contralex") / "cli" / "templates"
_LONGEST = 40  # letters of a name, so that no line of a template becomes too long
_COPIED = ("LICENSE",)  # copied as they are
_RENAMED = {"github": ".github", "gitignore": ".gitignore", "pyproject.toml.in": "pyproject.toml"}
_STARTS = f"What the package starts with, one part or several with commas between them: {', '.join(Start)}."


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The method's name, such as my-method.", show_default=False)
    ],
    parts: Annotated[
        str, typer.Option("--as", metavar="PART,...", help=_STARTS, autocompletion=complete_starts)
    ] = Start.METHOD.value,
    out: Annotated[
        Path | None,
        typer.Option(parser=path_of, help="The package's folder. Without it: contralex-NAME.", show_default=False),
    ] = None,
) -> None:
    """Write a plugin of your own to start from."""
    _check_name(name)
    starts = read_starts(parts, name)
    _check_free(name, starts)
    folder = write(name, starts, out or Path(f"contralex-{name}"))
    shown = str(folder) if folder.is_absolute() else f".{os.sep}{folder}"
    typer.echo(f"Wrote contralex-{name}, {describe(starts)}, to {folder}. Next:\n")
    plain = re.fullmatch(r"[\w./~:\\-]+", shown)  # double quotes, which every shell knows, are enough
    typer.echo("  pip install -e " + (f'"{shown}[test]"' if plain else shlex.quote(f"{shown}[test]")))
    typer.echo(f"  contralex check contralex-{name}")
    typer.echo(f"  contralex train {name} --preset digits")


def write(name: str, starts: Sequence[Start], folder: Path) -> Path:
    """Write the whole package or nothing: first beside its folder, then moved there."""
    if folder.exists() or folder.is_symlink():
        raise ContralexError(f"{folder} exists already; choose another folder with --out")
    if not folder.parent.is_dir():
        raise ContralexError(f"--out {folder}: there is no folder {folder.parent}; make it first")
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        for path, content in _files(name, starts):
            (unfinished / path).parent.mkdir(parents=True, exist_ok=True)
            (unfinished / path).write_bytes(content)
        unfinished.rename(folder)
    except OSError as error:
        raise ContralexError(f"{folder} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _files(name: str, starts: Sequence[Start]) -> Iterator[tuple[Path, bytes]]:
    """Each file's path in the package, and what it holds."""
    replacements = _replacements(name, starts)
    yield from _fill("package", replacements)
    parts = {start: dict(_fill(start, replacements)) for start in starts}
    yield from (compose(parts) if len(parts) > 1 else parts[starts[0]]).items()


def _fill(templates: str, replacements: dict[str, str]) -> Iterator[tuple[Path, bytes]]:
    """The files of one folder of templates, for this package."""
    for path, file in _walk(_TEMPLATES / templates):
        content = file.read_bytes()
        if file.name not in _COPIED:
            content = _substitute(content.decode("utf-8"), replacements).encode("utf-8")
        yield Path(*(_substitute(_RENAMED.get(part, part), replacements) for part in path.parts)), content


def _walk(folder: Traversable, at: Path = Path()) -> Iterator[tuple[Path, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir() and entry.name != "__pycache__":  # pip compiles the templates that are Python
            yield from _walk(entry, at / entry.name)
        elif entry.is_file():
            yield at / entry.name, entry


def _replacements(name: str, starts: Sequence[Start]) -> dict[str, str]:
    major, minor = (int(part) for part in metadata.version("contralex").split(".")[:2])
    return {
        "NAME": name,
        "IDENTIFIER": _identifier(name),
        "WHAT": describe(starts),
        "LOWEST": f"{major}.{minor}",
        "NEXT": f"{major}.{minor + 1}",
    }


def _substitute(text: str, replacements: dict[str, str]) -> str:
    return re.sub("|".join(replacements), lambda found: replacements[found[0]], text)


def _identifier(name: str) -> str:
    return name.replace("-", "_")


def _check_name(name: str) -> None:
    if name.startswith(("contralex-", "contralex_")):
        raise ContralexError(f"leave contralex- out of the name, which is added: contralex new {name[10:]}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")
        hint = f"; {near} would do" if near else ""
        raise ContralexError(f"a name is of small letters, digits and single hyphens, and {name!r} is not{hint}")
    if len(name) > _LONGEST:
        raise ContralexError(f"a name has at most {_LONGEST} letters, and {name} has {len(name)}")
    if keyword.iskeyword(name):
        raise ContralexError(f"{name} is a keyword of Python; choose another name, such as my-{name}")


def _check_free(name: str, starts: Sequence[Start]) -> None:
    """Refuse a name, recipe or kind that an installed package, or one of our own, has already."""
    from contralex.plugins.first_party import known_kinds, known_recipes
    from contralex.plugins.registry import registry

    known = {**known_recipes(), **{kind: owner for kinds in known_kinds().values() for kind, owner in kinds.items()}}
    distribution = f"contralex-{name}"
    if distribution in known.values():
        raise ContralexError(f"{distribution} is a package of contralex's own; choose another name")
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        pass
    else:
        raise ContralexError(f"{distribution} {version} is installed already; choose another name, or uninstall it")
    recipes = {recipe: plugin.name for recipe, (plugin, _) in registry().recipes().items()}
    owner = known_recipes().get(name) or recipes.get(name)
    if owner is not None:
        raise ContralexError(f"there is a recipe {name} in {owner} already; choose another name")
    for slot in slots_of(starts):
        plugin = registry().owner(slot, _identifier(name))
        owner = plugin.name if plugin else known_kinds().get(slot, {}).get(_identifier(name))
        if owner is not None:
            raise ContralexError(
                f"there is a {slot} of kind {_identifier(name)} in {owner} already; choose another name"
            )
