"""Python files that a recipe names: parts that are tried out before they are packed.

A file is a module with hooks, like a plugin's. It is run only with permission, which a command gets by
``--allow-code``; a recipe alone never runs anything. What was run is known by its SHA-256, which the resolved spec
holds, and so every checkpoint: a file that has changed since is refused before it is run.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from contralex.errors import ContralexError
from contralex.files import expand_user
from contralex.plugins.guard import guarded
from contralex.plugins.registry import Plugin, hook_manager, registry, take

if TYPE_CHECKING:
    from contralex.recipes.documents import Recipe

_permitted: ContextVar[bool] = ContextVar("permitted", default=False)
_loaded: dict[tuple[str, str], Plugin] = {}  # what was run in this process, by path and SHA-256
_texts: dict[tuple[str, str], bytes] = {}


@dataclass(frozen=True)
class File:
    """``path``: absolute. ``sha256``: what it must be, where a spec says so. ``place``: who names it, for messages."""

    path: Path
    sha256: str | None
    place: str


@contextmanager
def permission(given: bool) -> Iterator[None]:
    """Within, code files may be run if ``given``, or if they might before."""
    token = _permitted.set(_permitted.get() or given)
    try:
        yield
    finally:
        _permitted.reset(token)


def of(recipe: Recipe) -> list[File]:
    """The files that one recipe names, relative to its own file."""
    given = recipe.data.get("code")
    if given is None:
        return []
    if recipe.plugin is not None:
        raise recipe.mistake(
            "code", "names a Python file, and a packed recipe has none: its plugin's hooks offer parts"
        )
    line = recipe.lines.get(("code",))
    place = recipe.place if line is None else f"{recipe.place}:{line}"
    base = recipe.file.parent if isinstance(recipe.file, Path) else Path()
    files = []
    for item in given if isinstance(given, list) else [given]:
        entry = {"file": item} if isinstance(item, str) else item
        if not isinstance(entry, dict) or not _is_entry(entry):
            raise recipe.mistake("code", "is the path of a Python file such as ./my_part.py, or a list of paths")
        if "\0" in entry["file"]:
            raise recipe.mistake("code", "is the path of a Python file, and no path has a NUL in it")
        path = Path(os.path.realpath(base / expand_user(entry["file"])))
        files.append(File(path, entry.get("sha256"), place))
    return files


def use(files: Sequence[File]) -> dict[str, str]:
    """Makes the kinds of these files, and of no others, known to what is validated next. Path -> SHA-256."""
    plugins = {str(file.path): _plugin(file) for file in files}  # a parent and its child may name the same one
    registry().use(plugins.values())
    return {path: plugin.sha256 for path, plugin in plugins.items()}


def needed_by(pickled: bytes) -> list[tuple[str, bytes]]:
    """Path and text of the files whose classes a pickle names. As they were run: they may have changed since."""
    used = [key for key, plugin in _loaded.items() if plugin.module and plugin.module.__name__.encode() in pickled]
    return [(path, _texts[path, sha256]) for path, sha256 in used]


def run_again(files: Sequence[tuple[str, bytes]]) -> None:
    """In a process that this one has started, and that reads such a pickle."""
    for path, text in files:
        key = (path, hashlib.sha256(text).hexdigest())
        if key not in _loaded:
            _loaded[key] = _run(File(Path(path), None, path), text, key[1])


class Portable:
    """A data set that a process which is started anew can read from a pickle. Classes of code files are known there
    only once the files were run, so what may hold such classes is a pickle inside."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, at: Any) -> Any:
        return self.dataset[at]

    def __getitems__(self, wanted: Sequence[Any]) -> list[Any]:
        found: list[Any] = self.dataset.__getitems__(wanted)
        return found

    def __getstate__(self) -> tuple[list[tuple[str, bytes]], Any]:
        if not _loaded:
            return [], self.dataset
        pickled = pickle.dumps(self.dataset)
        return needed_by(pickled), pickled

    def __setstate__(self, state: tuple[list[tuple[str, bytes]], Any]) -> None:
        files, held = state
        run_again(files)
        self.dataset = pickle.loads(held) if isinstance(held, bytes) else held


def used_plugins(names: Iterable[str], files: Mapping[str, str]) -> list[Plugin]:
    """The plugins whose hooks take part in a run: distributions by their names, and ``files`` by path and SHA-256."""
    known = [registry().find_plugin(name) for name in names]
    return [*(plugin for plugin in known if plugin is not None), *(_loaded[file] for file in files.items())]


def _is_entry(entry: dict[str, object]) -> bool:
    known = entry.keys() <= {"file", "sha256"} and isinstance(entry.get("file"), str)
    return known and ("sha256" not in entry or isinstance(entry["sha256"], str))


def _plugin(file: File) -> Plugin:
    try:
        source = file.path.read_bytes()
    except OSError as error:
        raise ContralexError(
            f"{file.place}: code names {file.path}, which cannot be read ({error.strerror}); put the file there"
        ) from None
    sha256 = hashlib.sha256(source).hexdigest()
    if file.sha256 is not None and sha256 != file.sha256:
        raise ContralexError(
            f"{file.place}: {file.path} has changed since: its sha256 was {file.sha256[:12]}…, and is {sha256[:12]}…; "
            "bring it back as it was, or start a new run with it as it is"
        )
    key = (str(file.path), sha256)
    if key not in _loaded:
        if not _permitted.get():
            raise ContralexError(
                f"{file.place}: code names {file.path}, a Python file that would be run; "
                "if you trust it, say so: --allow-code (in Python: allow_code=True)"
            )
        _loaded[key] = _run(file, source, sha256)
        _texts[key] = source
    return _loaded[key]


def _run(file: File, source: bytes, sha256: str) -> Plugin:
    """Runs the very bytes that were hashed. (Python's own import would read the file again, or a cached form of it.)"""
    # A name that is the same in every process, and another one for another text.
    module = ModuleType(f"contralex_code_{re.sub(r'[^a-zA-Z0-9]', '_', file.path.stem)}_{sha256[:12]}")
    module.__file__ = str(file.path)
    sys.modules[module.__name__] = module  # where pydantic and pickle look for what a class's annotations name
    made = Plugin(file.path.name, f"sha256 {sha256[:12]}", code=str(file.path), sha256=sha256)
    try:
        with guarded(f"running {file.path}", f"It is named as code by {file.place}."):
            exec(compile(source, str(file.path), "exec"), module.__dict__)
            hook_manager().register(module)
            take(made, module)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        kind = "" if isinstance(error, ContralexError) else f"{type(error).__name__}: "
        raise ContralexError(f"{file.place}: running {file.path} failed: {kind}{error}") from error
    return made
