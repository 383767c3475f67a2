"""What a folder of runs holds. Imports no torch, and changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, overload

from contralex import memory, progress
from contralex.api.arguments import checked
from contralex.api.settings import PathLike, path_text
from contralex.errors import ContralexError
from contralex.files import expand_user, opened, parse_json, read_json
from contralex.recipes import yaml
from contralex.streams import align
from contralex.training import folders
from contralex.training.folders import SPEC

State = Literal["running", "ended", "stopped", "failed"]
SortBy = Literal["changed", "name", "recipe", "state", "steps", "loss", "knn", "seconds", "size"]

SORTS: tuple[SortBy, ...] = ("changed", "name", "recipe", "state", "steps", "loss", "knn", "seconds", "size")
_LARGEST_FIRST = ("changed", "steps", "knn", "seconds", "size")
_MARKS = (SPEC, "checkpoints", "metrics.jsonl")  # what a run's folder holds
_DEPTH = 4  # folders below the one that is named: of a comparison, a method, a seed
_TAIL = 1 << 16  # bytes of metrics.jsonl that are read, from its end


@dataclass(frozen=True)
class RunSummary:
    """One run. What is not known is None.

    ``name``: its folder, relative to the one that is listed. ``recipe``: its spec's name. ``state``: ``running``,
    ``ended``, ``stopped`` (by a signal, or it has not begun), or ``failed``, with the ``reason``. ``steps``: how many
    were trained. ``loss``: the last that was logged. ``knn``: the top-1 that was measured last. ``seconds``: of
    training, once it has ended. ``size``: bytes on disk. ``changed``: when its figures were written last, in seconds
    since 1970.
    """

    name: str
    recipe: str | None
    state: State
    steps: int | None
    loss: float | None
    knn: float | None
    seconds: float | None
    size: int
    changed: float
    reason: str | None = None

    def cells(self) -> list[str]:
        """The line of the table."""
        return [
            self.name,
            self.recipe or "-",
            self.state,
            "-" if self.steps is None else f"{self.steps:,}",
            "-" if self.loss is None else f"{self.loss:.3f}",
            "-" if self.knn is None else f"{self.knn:.1%}",
            "-" if self.seconds is None else progress.duration(self.seconds),
            memory.in_words(self.size),
        ]


COLUMNS = ("run", "recipe", "state", "steps", "last loss", "kNN", "time", "size")


class RunList(Sequence[RunSummary]):
    """The runs of a ``folder``. It prints as a table."""

    def __init__(self, folder: Path, found: Sequence[RunSummary]) -> None:
        self.folder = folder
        self._runs = tuple(found)

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, index: int) -> RunSummary: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[RunSummary]: ...

    def __getitem__(self, index: int | slice) -> RunSummary | Sequence[RunSummary]:
        return self._runs[index]

    def as_dicts(self) -> list[dict[str, Any]]:
        """What ``--json`` prints."""
        return [asdict(run) for run in self]

    def below(self) -> list[str]:
        """A sentence for each run that failed."""
        return [f"{run.name} failed: {run.reason}" for run in self if run.state == "failed" and run.reason]

    def __repr__(self) -> str:
        if not self:
            return f"{self.folder} holds no runs."
        lines = align([COLUMNS, *(run.cells() for run in self)])
        return "\n".join([*lines, *self.below()])


@checked
def runs(folder: PathLike = "runs", *, sort: SortBy = "changed") -> RunList:
    """The runs in a folder and in the folders below it, such as those of a comparison.

    ``sort``: ``changed`` (the newest first), ``name``, ``recipe``, ``state``, ``steps``, ``loss`` (the lowest first),
    ``knn``, ``seconds`` or ``size`` (the largest first). Runs without the figure come last.

    >>> import contralex
    >>> found = contralex.runs("runs", sort="name")
    >>> next(run.state for run in found if run.name == "my-run")
    'ended'
    """
    if sort not in SORTS:
        raise ContralexError(f"runs: sort is {sort!r}, and must be one of {', '.join(SORTS)}")
    root = expand_user(str(path_text(folder)))
    if not root.is_dir():
        raise ContralexError(f"runs: there is no folder {root}; give the folder that holds runs")
    found = [_summary(root, path) for path in _find(root)]
    return RunList(root, sorted(found, key=lambda run: _place(run, sort)))


def _place(run: RunSummary, sort: SortBy) -> tuple[bool, Any, str]:
    value: Any = asdict(run)[sort]
    if value is None:
        return True, 0, run.name
    return False, -value if sort in _LARGEST_FIRST else value, run.name


def _find(folder: Path, depth: int = 0) -> Iterator[Path]:
    """The folders of runs. What lies in a run's folder is the run's."""
    if any((folder / name).exists() for name in _MARKS):
        yield folder
    elif depth < _DEPTH:
        try:
            below = sorted(each.path for each in os.scandir(folder) if each.is_dir(follow_symlinks=False))
        except OSError:  # it may not be opened, or was removed meanwhile
            return
        for each in below:
            yield from _find(Path(each), depth + 1)


def _summary(root: Path, folder: Path) -> RunSummary:
    results = _read(folder / "results.json")
    line = _last_figures(folder / "metrics.jsonl")
    state, reason = _state(folder, results)
    own = _mapping(_mapping(results.get("knn")).get("this run"))
    return RunSummary(
        name=str(folder.relative_to(root)) if folder != root else folder.name,
        recipe=_recipe(folder, results),
        state=state,
        steps=_number(results.get("steps", line.get("step"))),
        loss=_number(results.get("last_loss", line.get("loss"))),
        knn=_number(own.get("top1", line.get("knn_top1"))),
        seconds=_number(results.get("seconds")),
        size=_size(folder),
        changed=_changed(folder),
        reason=reason,
    )


def _state(folder: Path, results: Mapping[str, Any]) -> tuple[State, str | None]:
    is_written = folders.is_being_written(folder)
    if is_written:
        return "running", None
    if is_written is False:
        return "failed", "its process was killed"
    failure = _read(folder / folders.FAILURE).get("reason")
    if isinstance(failure, str):  # also of one that ended before, and went on
        return "failed", failure
    return ("ended", None) if results else ("stopped", None)


def _recipe(folder: Path, results: Mapping[str, Any]) -> str | None:
    name = results.get("name")
    if name is None:
        with suppress(OSError, ValueError, ContralexError):
            name = _mapping(yaml.read((folder / SPEC).read_text("utf-8"), str(folder / SPEC)).data).get("name")
    return name if isinstance(name, str) else None


def _last_figures(file: Path) -> dict[str, Any]:
    """The last of each figure in the end of ``metrics.jsonl``, which may be long."""
    found: dict[str, Any] = {}
    with suppress(OSError), opened(file) as lines:
        size = lines.seek(0, os.SEEK_END)
        lines.seek(max(size - _TAIL, 0))
        for text in lines.read(_TAIL).splitlines()[size > _TAIL :]:  # the first may have lost its beginning
            with suppress(ValueError):  # a last one that a killed run did not finish
                found |= _mapping(parse_json(text))
    return found


def _read(file: Path) -> dict[str, Any]:
    """What a JSON file says; nothing where there is none that can be read."""
    try:
        return _mapping(read_json(file))
    except (OSError, ValueError):
        return {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _size(folder: Path) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # a checkpoint that is replaced just now
                total += os.lstat(os.path.join(where, name)).st_size
    return total


def _changed(folder: Path) -> float:
    """When its figures were written last; of a run without any, when its folder was."""
    for name in ("results.json", "metrics.jsonl", SPEC, ""):
        with suppress(OSError):
            return (folder / name).stat().st_mtime
    return 0.0
