"""Several methods under one budget, with several seeds or values of a setting: one table, one figure."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contralex import progress, streams
from contralex.api.arguments import checked
from contralex.api.launching import check_processes
from contralex.api.runs import Run
from contralex.api.settings import PathLike, Sets, path_text, set_texts
from contralex.comparison.figure import MISSING, draw, has_figures, is_possible
from contralex.comparison.plan import Budget, plan
from contralex.comparison.runs import check_folder, run_all
from contralex.comparison.table import below, cells, markdown, summary
from contralex.errors import ContralexError
from contralex.files import expand_user, write_text
from contralex.recipes.data_files import check_present
from contralex.training import folders


@dataclass(frozen=True, repr=False)
class Comparison:
    """A table of several runs. It prints as one. ``folder`` holds the runs, ``table.md`` and ``figure.svg``.

    ``rows``: a dict for each method, the best by kNN first. ``failed``: the reasons, by method. ``result``: all of
    ``results.json``.

    >>> import contralex
    >>> table = contralex.compare(["moco-v2", "simclr-v1"], preset="digits", epochs=1, out="runs/two")
    >>> table.run("moco-v2").results["epochs"]
    1
    """

    folder: Path
    result: dict[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.result["rows"]
        return rows

    @property
    def failed(self) -> dict[str, str]:
        failed: dict[str, str] = self.result["failed"]
        return failed

    def run(self, name: str, seed: int | None = None) -> Run:
        """The run of one method, or of a line of the table such as ``moco-v2 temperature=0.1``; of several seeds, that
        with ``seed``."""
        row = next((row for row in self.rows if row["name"] == name), {"seeds": [], "folders": [name]})
        by_seed = dict(zip(row["seeds"] or [None], row["folders"], strict=True))
        if seed not in by_seed:
            known = ", ".join(map(str, row["seeds"])) or "none that was asked for"
            raise ContralexError(f"{name} was trained with these seeds: {known}; seed is {seed}")
        return Run(self.folder / by_seed[seed])

    def __repr__(self) -> str:
        headings: dict[str, str] = self.result["columns"]
        table = [list(headings.values()), *(cells(row, headings) for row in self.rows)]
        lines = streams.align(table)
        return "\n".join([*lines, *below(self.result)])


@checked
def compare(
    methods: Sequence[str],
    *,
    preset: str | None = None,
    epochs: int | None = None,
    data: PathLike | None = None,
    seed: int | None = None,
    sets: Sets = None,
    out: PathLike | None = None,
    resume: bool = False,
    processes: int = 1,
    allow_code: bool = False,
    seeds: Sequence[int] = (),
    at_once: int | None = None,
) -> Comparison:
    """Train several methods under one budget, and evaluate all alike.

    ``methods``: recipes or YAML files, or ``["all"]``: every recipe that has the preset. ``epochs``, ``data``, ``seed``
    and ``sets`` hold for all. ``out``: the comparison's folder; without it ``runs/compare-TIME``. ``resume``: go on
    with the comparison in ``out``. A method that fails is in ``failed`` with its reason, and the others go on. Each is
    trained in a process of its own. ``seeds``: each method is trained with each of them, and the table has means and
    deviations. A text of ``sets`` such as ``"train.epochs=5,10"`` trains each method with each value. ``at_once``: how
    many runs are trained at the same time; without it one for each ``processes`` GPUs, and one on the CPU.

    >>> import contralex
    >>> table = contralex.compare(["moco-v2", "simclr-v1"], preset="digits", epochs=1, out="runs/two")
    >>> [row["name"] for row in table.rows]
    ['moco-v2', 'simclr-v1']
    """
    if isinstance(methods, str) or not methods:
        raise ContralexError(f'compare: give a list of methods, such as ["{methods or "moco-v2"}", "simclr-v1"]')
    with progress.listening("stderr"):
        return compare_methods(
            methods,
            Budget(preset, epochs, seed, path_text(data), tuple(set_texts(sets)), allow_code, tuple(seeds)),
            None if out is None else expand_user(str(path_text(out))),
            resume,
            processes,
            at_once=at_once,
            quiet=True,
        )


def compare_methods(
    methods: Sequence[str],
    budget: Budget,
    out: Path | None,
    resume: bool,
    processes: int,
    *,
    at_once: int | None = None,
    quiet: bool,
    show: Callable[[dict[str, Any]], None] = lambda result: None,
) -> Comparison:
    """``quiet``: the runs report to stderr. ``show`` gets the result before it is written: a disk that is full costs
    the files, and not what was computed."""
    if resume and out is None:
        raise ContralexError("--resume: say which comparison with --out, such as --out runs/compare")
    check_processes(processes)
    if at_once is not None and at_once < 1:
        raise ContralexError(f"at_once is {at_once}, and must be at least 1; without it, the machine says how many")
    _check_seeds(budget)
    said = {"train.epochs": f"--epochs {budget.epochs}" if budget.epochs is not None else ""}
    said["train.seed"] = f"--seed {budget.seed}" if budget.seed is not None else ""
    said["train.seed"] = f"--seeds {_join(budget.seeds)}" if budget.seeds else said["train.seed"]
    for name in (text.partition("=")[0].strip() for text in budget.sets):
        if said.get(name):
            raise ContralexError(f"--set {name}: it is said twice; leave this out, or {said[name]}")
    planned = plan(methods, budget)
    if out is not None:
        check_folder(planned, out, resume)
    for entry in planned.entries:
        if entry.resolved is not None and entry.recipe in methods and not resume:
            command = ["contralex", "compare", *methods]
            check_present(entry.resolved, entry.recipe, command, allow_code=budget.allow_code)
    if not is_possible():
        _say(f"Warning: {MISSING}")
    if out is None:
        out, _ = folders.make_new(folders.name_by_time("compare"))
    else:
        folders.make(out)
    with folders.Lock(out):
        check_folder(planned, out, resume)  # again, for another comparison may have come and gone since
        found = run_all(planned, out, processes, quiet, _say, at_once)
        result = summary(planned, found)
        show(result)
        write_text(out / "results.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        write_text(out / "table.md", markdown(result, _command(methods, budget, processes)))
        if is_possible() and has_figures(result["rows"]):
            draw(result["rows"], f"preset {budget.preset}" if budget.preset else "", out / "figure.svg")
    return Comparison(out, result)


def _check_seeds(budget: Budget) -> None:
    if budget.seeds and budget.seed is not None:
        raise ContralexError(f"--seed {budget.seed}: seeds are said twice; leave --seed or --seeds out")
    if any(type(seed) is not int or seed < 0 for seed in budget.seeds):
        raise ContralexError(f"seeds: {list(budget.seeds)} are not all whole numbers from 0 on")
    if len(set(budget.seeds)) < len(budget.seeds):
        raise ContralexError(f"--seeds {_join(budget.seeds)}: a number stands there twice; leave one out")


def _join(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _say(text: str) -> None:
    streams.write_line(sys.stderr, text)


def _command(methods: Sequence[str], budget: Budget, processes: int) -> str:
    """What makes the same table again."""
    options: dict[str, Any] = {
        "--preset": budget.preset,
        "--epochs": budget.epochs,
        "--data": budget.data,
        "--seed": budget.seed,
    }
    options["--seeds"] = _join(budget.seeds) or None
    said = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    said += [word for text in budget.sets for word in ("--set", text)]
    said += ["--processes", str(processes)] if processes > 1 else []
    return shlex.join(["contralex", "compare", *methods, *said])
