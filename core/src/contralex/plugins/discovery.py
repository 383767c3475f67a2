"""Which distributions say that they are plugins: read from their records on disk, before anything is imported.

``importlib.metadata.entry_points`` reads the records of everything that is installed in one go, and one record that
is damaged takes all of them down. Here each is read alone, and what is wrong with it is said in ``problem``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from email import message_from_string
from email.message import Message
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from contralex.compat import record_folder
from contralex.plugins.hooks import PROJECT

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

VARIABLE = "CONTRALEX_PLUGINS"
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_END_OF_FIELDS = re.compile(r"\r?\n\r?\n")
_VERSIONS = r"(?:[<>=!~]=|[<>])\d+(?:\.\d+)*"
_PLAIN = re.compile(rf"(?P<name>[A-Za-z0-9][\w.-]*) ?(?P<versions>(?:{_VERSIONS}(?:,{_VERSIONS})*)?)", re.ASCII)


@dataclass(frozen=True)
class InstalledPlugin:
    """A distribution with an entry point in the group ``contralex``.

    ``requires``: its bounds on contralex, such as ``>=0.1,<0.2``, or nothing. ``location``: the folder that it is
    imported from, which for an editable installation is the project's. ``problem``: why it cannot be imported.
    """

    name: str
    version: str = "unknown"
    entry_point: str = ""
    requires: str = ""
    location: str = ""
    editable: bool = False
    problem: str = ""
    misfit: str = ""

    @property
    def module(self) -> str:
        return self.entry_point.partition("=")[2].strip()


class Choice:
    """``CONTRALEX_PLUGINS="a,-b"``: names allow only themselves, names after a minus are blocked."""

    def __init__(self, text: str) -> None:
        self.text = text
        words = [normal(word.strip()) for word in text.split(",") if word.strip()]
        self.blocked = {word[1:] for word in words if word.startswith("-")}
        self.allowed = {word for word in words if not word.startswith("-")}

    def allows(self, name: str) -> bool:
        name = normal(name)
        return name not in self.blocked and (not self.allowed or name in self.allowed)

    def unmatched(self, known: Iterable[str]) -> list[str]:
        return sorted((self.blocked | self.allowed) - {normal(name) for name in known})

    def and_block(self, name: str) -> str:
        """The value that leaves out one more, without taking anything of the present choice back."""
        kept = [word for word in self.text.split(",") if word.strip() and normal(word.strip()) != normal(name)]
        return ",".join([*kept, f"-{name}"])


def unmatched(name: str) -> str:
    """The sentence for a name in the variable that no plugin has."""
    return f"{VARIABLE} names {name}, but no plugin of this name is installed"


def installed() -> list[InstalledPlugin]:
    """In the order of their names. Of two records of one distribution Python takes the first, and so does this."""
    found: dict[str, InstalledPlugin] = {}
    for distribution in metadata.distributions():
        lines = _entry_points(distribution)
        if lines:
            plugin = _read(distribution, lines)
            if normal(plugin.name) not in found and not _is_shadowed(distribution, plugin.name):
                found[normal(plugin.name)] = plugin
    return [found[name] for name in sorted(found)]


def name_and_version(distribution: metadata.Distribution) -> tuple[str, str]:
    """From its metadata, or, where they cannot be read, from the name of the folder that should hold them."""
    name, version = None, "unknown"
    try:
        fields = _fields(distribution)
        name, version = fields["Name"], str(fields["Version"] or "unknown")
    except Exception:  # every kind of damage raises something else, and none is worth a traceback
        pass
    return str(name) if name else record_folder(distribution).name.rpartition(".")[0].partition("-")[0], version


def _fields(distribution: metadata.Distribution) -> Message | metadata.PackageMetadata:
    """The fields of its metadata. The description below them is left out, because it is long, and is parsed as well."""
    text = distribution.read_text("METADATA")
    return message_from_string(_END_OF_FIELDS.split(text, 1)[0]) if text else distribution.metadata


def normal(name: str) -> str:
    """As pip compares names; a leading minus stays."""
    return re.sub(r"(?<=.)[-_.]+", "-", name).lower()


@lru_cache(maxsize=1)
def core_version() -> str:
    return metadata.version(PROJECT)


def _entry_points(distribution: metadata.Distribution) -> list[str]:
    """The lines of the group ``contralex``, as they stand in the file. Other groups are none of our business."""
    try:
        text = distribution.read_text("entry_points.txt") or ""
    except (OSError, UnicodeDecodeError):
        return []
    group, lines = "", []
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("["):
            group = line.strip("[] ")
        elif line and not line.startswith(("#", ";")) and group == PROJECT:
            lines.append(line)
    return lines


def _read(distribution: metadata.Distribution, lines: list[str]) -> InstalledPlugin:
    name, version = name_and_version(distribution)
    location, editable = _location(distribution)
    again = f"pip install --force-reinstall {name}"
    requires = misfit = problem = ""
    try:
        fields = _fields(distribution)
        requires, misfit = _bounds(fields.get_all("Requires-Dist") or distribution.requires or [])
        if not fields["Name"]:
            problem = f"its metadata in {record_folder(distribution)} state no name; {again}"
    except Exception as error:
        problem = (
            f"its metadata in {record_folder(distribution)} cannot be read ({type(error).__name__}: {error}); {again}"
        )
    if not problem and len(lines) > 1:
        problem = f"its distribution has {len(lines)} entry points in the group {PROJECT}; one is allowed"
    if not problem and not _MODULE.fullmatch(lines[0].partition("=")[2].strip()):
        problem = f"its entry point {lines[0]!r} is malformed; it is written like: name = package.module"
    return InstalledPlugin(name, version, lines[0], requires, location, editable, problem, misfit)


def _bounds(requirements: Iterable[str]) -> tuple[str, str]:
    """What a distribution asks of contralex, and, where that excludes the running core, the sentence for it."""
    for line in requirements:
        name, asked = _requirement(line)
        if normal(name) == PROJECT and asked is not None:
            if asked.contains(core_version(), prereleases=True):
                return str(asked), ""
            return str(asked), f"it asks for contralex{asked}, and this is contralex {core_version()}"
    return "", ""


def _requirement(line: str) -> tuple[str, SpecifierSet | None]:
    """The name and the versions that a requirement asks for; None where its marker excludes this environment."""
    from packaging.specifiers import SpecifierSet

    if plain := _PLAIN.fullmatch(line):  # most are so, and the parser of all others takes long to import
        return plain["name"], SpecifierSet(plain["versions"])
    from packaging.requirements import Requirement

    requirement = Requirement(line)
    applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    return requirement.name, requirement.specifier if applies else None


def _location(distribution: metadata.Distribution) -> tuple[str, bool]:
    """The folder that holds the package, and whether it is an editable installation's (PEP 610)."""
    try:
        record = json.loads(distribution.read_text("direct_url.json") or "{}")
        if record.get("dir_info", {}).get("editable"):
            return unquote(urlsplit(record["url"]).path), True
    except (OSError, ValueError, KeyError, AttributeError):
        pass  # the record is optional, and says nothing where it is damaged
    return str(distribution.locate_file("")), False


def _is_shadowed(distribution: metadata.Distribution, name: str) -> bool:
    """Whether another record of the same name comes first on the path: one without an entry point, say."""
    try:
        first = metadata.distribution(name)
    except Exception:
        return False
    return record_folder(first) != record_folder(distribution)


def records(names: Container[str]) -> dict[str, list[str]]:
    """For each of these normalised names, the places that hold a record of it, each with its version."""
    places: dict[str, set[str]] = {}
    for distribution in metadata.distributions():
        name, version = name_and_version(distribution)
        if normal(name) in names:
            where = os.path.realpath(str(distribution.locate_file("")))
            places.setdefault(normal(name), set()).add(f"{where} ({version})")
    return {name: sorted(where) for name, where in sorted(places.items())}
