"""``contralex train``. The spec is resolved first, so that its mistakes show before torch is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contralex import progress
from contralex.api.settings import set_texts
from contralex.cli.options import AllowCode, Data, Epochs, Preset, Sets, complete_recipes, path
from contralex.errors import ContralexError


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="The name of an installed recipe, or the path of a YAML file. May be left out with --resume.",
            show_default=False,
            autocompletion=complete_recipes,
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
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes to start, on the GPUs if there are any, else on the CPU.")
    ] = 1,
    allow_code: AllowCode = False,
    allow_drift: Annotated[
        bool,
        typer.Option(
            "--allow-drift",
            help="With --resume: use the spec and plugins as they are now, and record what changed.",
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
    """Train a method on a folder of your images.

    A known data set, such as cifar10, can be named in place of the folder.
    """
    from contralex.api import launching, training
    from contralex.api.train_options import TrainOptions

    progress.listen("stdout")
    texts = set_texts(sets, epochs)
    if dry:
        if recipe is None or resume or out is not None:
            raise ContralexError("--dry-run is for a run that begins, and writes none: give a recipe, without --out")
        if processes > 1:
            raise ContralexError("--dry-run measures one process; leave out --processes")
        found = training.dry_run(
            recipe, preset=preset, data=data, sets=texts, allow_code=allow_code, fit=fit, minutes=minutes
        )
        typer.echo(str(found))
        return
    if processes > 1 and not launching.is_launched():
        options = TrainOptions(recipe, preset, data, texts, out, resume, allow_code, allow_drift)
        options = options.fitted(processes, fit, minutes)
        options.resolve()  # its mistakes are said once, and not by each process
        raise typer.Exit(launching.launch(options.command(), processes, "stdout"))
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
