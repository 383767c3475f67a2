"""Commands that compute: train, eval knn, linear. The spec is resolved first: its mistakes show before torch is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from contralex import progress
from contralex.api.settings import set_texts
from contralex.cli.options import (
    AllowCode,
    Checkpoint,
    Data,
    Epochs,
    Json,
    Preset,
    Sets,
    path,
    print_json,
    print_table,
)
from contralex.errors import ContralexError


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="The name of an installed recipe, or the path of a YAML file. May be left out with --resume.",
            show_default=False,
        ),
    ] = None,
    preset: Preset = None,
    data: Data = None,
    epochs: Epochs = None,
    sets: Sets = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=path, help="The run's folder. Without it: runs/RECIPE-TIME.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    processes: Annotated[
        int, typer.Option(min=1, help="How many to start: on the GPUs where there are any, else on the CPU.")
    ] = 1,
    allow_code: AllowCode = False,
    allow_drift: Annotated[
        bool,
        typer.Option(
            "--allow-drift", help="With --resume: take the spec and plugins as they are now, and record what changed."
        ),
    ] = False,
    fit: Annotated[
        bool,
        typer.Option("--fit", help="Set batch, queue, precision and workers to fit the data and this machine."),
    ] = False,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.1, help="With --fit: choose the epochs that fit into this time.", show_default=False),
    ] = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what the run would take, from a few timed steps. Train nothing.")
    ] = False,
) -> None:
    """Train a method on images of your own, or on a known data set."""
    from contralex.api import training

    progress.listen("stdout")
    texts = set_texts(sets, epochs)
    if dry:
        _say_what_it_would_take(recipe, preset, data, texts, out, resume, processes, allow_code, fit, minutes)
        return
    if processes > 1 and not training.is_launched():
        options = (recipe, preset, data, texts, out, resume, allow_code, allow_drift)
        texts = training.sets_to_train(*options, processes=processes, fit=fit, minutes=minutes)
        options = (recipe, preset, data, texts, out, resume, allow_code, allow_drift)
        training.resolve_to_train(*options)  # its mistakes are said once, and not by each process
        raise typer.Exit(training.launch(training.train_command(*options), processes, "stdout"))
    training.train(
        recipe,
        preset=preset,
        data=data,
        sets=texts,
        out=out,
        resume=resume,
        allow_code=allow_code,
        allow_drift=allow_drift,
        fit=fit,
        minutes=minutes,
    )


def _say_what_it_would_take(
    recipe: str | None,
    preset: str | None,
    data: str | None,
    sets: list[str],
    out: Path | None,
    resume: bool,
    processes: int,
    allow_code: bool,
    fit: bool,
    minutes: float | None,
) -> None:
    from contralex.api import training

    if recipe is None or resume or out is not None:
        raise ContralexError("--dry-run is for a run that begins, and writes none: give a recipe, without --out")
    if processes > 1:
        raise ContralexError("--dry-run measures one process; leave out --processes")
    found = training.dry_run(
        recipe, preset=preset, data=data, sets=sets, allow_code=allow_code, fit=fit, minutes=minutes
    )
    typer.echo(str(found))


def knn(
    checkpoint: Checkpoint,
    data: Data = None,
    sets: Sets = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Judge a checkpoint by its nearest neighbours, beside raw pixels and the untrained encoder."""
    from contralex.api import runs

    progress.listen("stderr")
    _print("kNN", runs.Run(checkpoint, allow_code=allow_code).knn(data, sets), as_json)


def linear(
    checkpoint: Checkpoint,
    data: Data = None,
    sets: Sets = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Judge a checkpoint by a linear classifier on its frozen features, beside raw pixels and the untrained encoder."""
    from contralex.api import runs

    progress.listen("stderr")
    _print("linear probe", runs.Run(checkpoint, allow_code=allow_code).linear(data, sets), as_json)


def _print(judge: str, found: Mapping[str, Any], as_json: bool) -> None:
    figures: dict[str, dict[str, Any]] = {name: _plain(result) for name, result in found.items()}
    if as_json:
        print_json(figures)
        return
    names = [name for name, value in next(iter(figures.values())).items() if isinstance(value, float)]
    print_table(
        ["features", *names], [[who, *(f"{result[name]:.1%}" for name in names)] for who, result in figures.items()]
    )
    protocol: dict[str, Any] = next(iter(figures.values())).get("protocol", {})
    typer.echo(f"{judge}: " + ", ".join(f"{name} {value}" for name, value in protocol.items()))
    for who, result in figures.items():  # a baseline may be measured on fewer samples, and on smaller pictures
        own = {name: value for name, value in result.get("protocol", {}).items() if protocol.get(name) != value}
        if set(own) - {"features", "converged"} or own.get("features", "pixels") != "pixels":
            typer.echo(f"{who}: " + ", ".join(f"{name} {value}" for name, value in own.items()))


def _plain(result: Any) -> dict[str, Any]:
    return asdict(result) if is_dataclass(result) and not isinstance(result, type) else dict(result)
