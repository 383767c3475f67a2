"""Commands that compute: train, eval knn, linear. The spec is resolved first: its mistakes show before torch is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from contralex import progress
from contralex.cli.options import (
    AllowCode,
    Checkpoint,
    Data,
    Epochs,
    Json,
    Preset,
    Sets,
    must_exist,
    path,
    print_json,
    print_table,
    with_epochs,
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
) -> None:
    """Train a method on images of your own, or on a known data set."""
    from contralex.recipes.layers import resolve

    progress.listen("stdout")
    recipe = _recipe(recipe, out, resume)
    sets = with_epochs(sets, epochs)
    if allow_drift and not resume:
        raise ContralexError("--allow-drift is about a run that is resumed; add --resume and its --out")
    is_own = resume and out is not None and Path(recipe) == out / "spec.yaml"  # which holds no presets itself
    resolved = resolve(recipe, preset=preset, data=data, sets=sets, allow_code=allow_code, presets_of_its_name=is_own)
    if not resume:
        from contralex.recipes.data_files import check_present

        check_present(resolved, recipe, ["contralex", "train", recipe], allow_code=allow_code)
    if processes > 1 and not is_launched():
        from contralex.training.launch import launch

        argv = _argv(recipe, preset, data, sets, out, resume, allow_code, allow_drift)
        raise typer.Exit(launch(argv, processes))

    from contralex.recipes.code_files import permission
    from contralex.training.run import train as start

    with permission(allow_code):  # also for the files of a run whose encoder this one takes
        start(resolved, out, resume, allow_drift)


def _recipe(recipe: str | None, out: Path | None, resume: bool) -> str:
    if resume and out is None:
        raise ContralexError("--resume: say which run with --out, such as --out runs/my-run")
    if recipe is not None:
        return recipe
    if not resume or out is None:
        raise ContralexError("train what? give a recipe (`contralex methods` lists them) or the path of a YAML file")
    if not (out / "spec.yaml").is_file():
        raise ContralexError(f"--resume: {out} holds no spec.yaml, so it is not a run's folder")
    return str(out / "spec.yaml")


def is_launched() -> bool:
    """Whether torchrun, accelerate or our own launcher has started this process as one of several."""
    return "LOCAL_RANK" in os.environ or "WORLD_SIZE" in os.environ


def _argv(
    recipe: str,
    preset: str | None,
    data: str | None,
    sets: list[str],
    out: Path | None,
    resume: bool,
    allow_code: bool,
    allow_drift: bool,
) -> list[str]:
    """The same command for each process."""
    options = {"--preset": preset, "--data": data, "--out": out}
    said = [f"{name}={value}" for name, value in options.items() if value is not None]
    switches = {"--resume": resume, "--allow-code": allow_code, "--allow-drift": allow_drift}
    flags = [name for name, on in switches.items() if on]
    return ["train", *said, *(f"--set={text}" for text in sets), *flags, "--", recipe]


def knn(
    checkpoint: Checkpoint,
    data: Data = None,
    sets: Sets = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Judge a checkpoint by its nearest neighbours, beside raw pixels and the untrained encoder."""
    must_exist(checkpoint)
    progress.listen("stderr")

    from contralex.training.evaluate_run import knn as judge

    _print("kNN", judge(checkpoint, data, sets or [], allow_code=allow_code), as_json)


def linear(
    checkpoint: Checkpoint,
    data: Data = None,
    sets: Sets = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Judge a checkpoint by a linear classifier on its frozen features, beside raw pixels and the untrained encoder."""
    must_exist(checkpoint)
    progress.listen("stderr")

    from contralex.training.evaluate_run import linear as judge

    _print("linear probe", judge(checkpoint, data, sets or [], allow_code=allow_code), as_json)


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
