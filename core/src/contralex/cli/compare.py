"""``contralex compare``: several methods under one budget, and one table."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from contralex.cli.options import AllowCode, Json, Sets, path, print_json, print_table
from contralex.errors import ContralexError


def compare(
    methods: Annotated[
        list[str],
        typer.Argument(
            metavar="METHODS...",
            help="Installed recipes or YAML files; `all`: every installed recipe that has the preset.",
            show_default=False,
        ),
    ],
    preset: Annotated[str | None, typer.Option(help="A preset that each of them has.", show_default=False)] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="So many for each method. Without it, as its recipe says.", show_default=False),
    ] = None,
    data: Annotated[str | None, typer.Option(help="As for `contralex train`, for all.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same for all.", show_default=False)] = None,
    sets: Sets = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=path, help="The comparison's folder. Without it: runs/compare-TIME.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the comparison in --out.")] = False,
    processes: Annotated[int, typer.Option(min=1, help="Of each run, as for `contralex train`.")] = 1,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Train several methods under one budget, one after the other, and judge all alike: one table, one figure.

    One that fails is named with its reason, and the others go on; the exit status is then 1.
    """
    from contralex.comparison.figure import MISSING, draw, is_possible
    from contralex.comparison.plan import Budget, plan
    from contralex.comparison.runs import check_folder, run_all
    from contralex.comparison.table import markdown, summary
    from contralex.files import write_text
    from contralex.recipes.data_files import check_present
    from contralex.training import run_folder

    if resume and out is None:
        raise ContralexError("--resume: say which comparison with --out, such as --out runs/compare")
    for name in (text.partition("=")[0].strip() for text in sets or ()):
        said = {"train.epochs": epochs, "train.seed": seed}.get(name)
        if said is not None:
            raise ContralexError(
                f"--set {name}: it is said twice; leave this out, or --{name.partition('.')[2]} {said}"
            )
    planned = plan(methods, Budget(preset, epochs, seed, data, tuple(sets or ()), allow_code))
    if out is not None:
        check_folder(planned, out, resume)
    for entry in planned.entries:
        if entry.resolved is not None and entry.recipe in methods and not resume:
            check_present(entry.resolved, entry.recipe, ["contralex", "compare", *methods], allow_code=allow_code)
    if not is_possible():
        _say(f"Warning: {MISSING}")
    if out is None:
        out, _ = run_folder.make_new(run_folder.named_now("compare"))
    else:
        run_folder.make(out)
    with run_folder.Lock(out):
        check_folder(planned, out, resume)  # again, for another comparison may have come and gone since
        found = run_all(planned, out, processes, as_json or not sys.stdout.isatty(), _say)
        result = summary(planned, found)
        _print(result, as_json)  # first: a disk that is full costs the files, and not what was computed
        write_text(out / "results.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        command = _command(methods, preset, epochs, data, seed, sets or [], processes)
        write_text(out / "table.md", markdown(result, command))
        if result["rows"] and is_possible():
            draw(result["rows"], f"preset {preset}" if preset else "", out / "figure.svg")
    if not as_json:
        typer.echo(f"Saved in {out}")
    if result["failed"]:
        raise typer.Exit(1)


def _print(result: dict[str, Any], as_json: bool) -> None:
    from contralex.comparison.table import below, cells

    if as_json:
        print_json(result)
        return
    headings = result["columns"]
    print_table(list(headings.values()), [cells(row, headings) for row in result["rows"]])
    for sentence in below(result):
        typer.echo(sentence)


def _command(
    methods: list[str],
    preset: str | None,
    epochs: int | None,
    data: str | None,
    seed: int | None,
    sets: list[str],
    processes: int,
) -> str:
    """What makes the same table again."""
    options = {"--preset": preset, "--epochs": epochs, "--data": data, "--seed": seed}
    said = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    said += [word for text in sets for word in ("--set", text)]
    said += ["--processes", str(processes)] if processes > 1 else []
    return shlex.join(["contralex", "compare", *methods, *said])


def _say(text: str) -> None:
    typer.echo(text, err=True)
