"""``contralex eval``: a checkpoint by one evaluator. Imports no torch before the options are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Annotated, Any

import typer

from contralex import progress
from contralex.cli.measure import numbers, show
from contralex.cli.options import AllowCode, Checkpoint, Data, Json, Sets, print_json, print_table
from contralex.errors import ContralexError, remedy
from contralex.evaluation.base import THIS
from contralex.evaluation.records import Evaluation


def command_for(name: str, label: str, help_text: str) -> Callable[..., None]:
    """The command of one evaluator. ``label``: what its line of settings begins with."""

    def evaluate(
        run: Checkpoint,
        data: Data = None,
        sets: Sets = None,
        allow_code: AllowCode = False,
        as_json: Json = False,
    ) -> None:
        _evaluate(name, label, run, data, sets, allow_code, as_json)

    evaluate.__name__, evaluate.__doc__ = name, help_text
    return evaluate


_BESIDE = "\n\nRaw pixels and the untrained encoder are evaluated beside it."
knn = command_for("knn", "kNN", "Classify images by their nearest neighbours." + _BESIDE)
classify = command_for(
    "classify",
    "classified",
    "Evaluate a classifier, such as a fine-tuned run.\n\n"
    "The encoder's embeddings are read as the logits of the classes.",
)


def linear(
    run: Checkpoint,
    data: Data = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Train as a paper's code does: moco-v2, simclr, byol, swav, barlow-twins, vicreg, simsiam, moco-v3, "
            "dino or mae. Without it: logistic regression, which has no learning rate.",
            show_default=False,
        ),
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(help="With --protocol: learning rates in place of its own.", metavar="R,R", show_default=False),
    ] = None,
    decays: Annotated[
        str | None,
        typer.Option(help="With --protocol: weight decays in place of its own.", metavar="W,W", show_default=False),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="With --protocol: epochs in place of its own.", metavar="N", show_default=False),
    ] = None,
    crops: Annotated[
        bool, typer.Option("--crops/--no-crops", help="With --protocol: random crops, or the plain images alone.")
    ] = True,
    sets: Sets = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Train a linear classifier on frozen features.

    Raw pixels and the untrained encoder are evaluated beside it. With --protocol, the classifier is
    trained by SGD as a paper has it, all pairs of --rates and --decays at once.
    """
    if protocol is None:
        option = next(
            (name for name, value in (("--rates", rates), ("--decays", decays), ("--epochs", epochs)) if value), None
        )
        if option is not None or not crops:
            raise ContralexError(
                f"{option or '--no-crops'}: logistic regression has none of it. Train by a protocol:"
                + remedy("--protocol", "swav")
            )
        _evaluate("linear", "linear probe", run, data, sets, allow_code, as_json)
        return
    from contralex.api import runs

    progress.listen("stderr")
    found = runs.Run(run, allow_code=allow_code).train_linear(
        protocol,
        data,
        rates=numbers("--rates", rates or ""),
        decays=numbers("--decays", decays or ""),
        epochs=epochs,
        crops=crops,
        sets=sets,
    )
    show(found, as_json)


def _evaluate(
    name: str, label: str, run: Checkpoint, data: Data, sets: Sets, allow_code: AllowCode, as_json: Json
) -> None:
    from contralex.api import runs

    progress.listen("stderr")
    _print(label, runs.Run(run, allow_code=allow_code).evaluate(name, data, sets), as_json)


def _print(label: str, found: Mapping[str, Any], as_json: bool) -> None:
    figures: dict[str, dict[str, Any]] = {name: _plain(result) for name, result in found.items()}
    if as_json:
        if isinstance(found, Evaluation):
            figures[THIS]["record"] = found.record
        print_json(figures)
        return
    names = [name for name, value in next(iter(figures.values())).items() if isinstance(value, float)]
    print_table(
        ["features", *names], [[who, *(f"{result[name]:.1%}" for name in names)] for who, result in figures.items()]
    )
    protocol: dict[str, Any] = next(iter(figures.values())).get("protocol", {})
    typer.echo(f"{label}: " + ", ".join(f"{name} {value}" for name, value in protocol.items()))
    for who, result in figures.items():  # a baseline may be measured on fewer samples, and on smaller pictures
        own = {name: value for name, value in result.get("protocol", {}).items() if protocol.get(name) != value}
        if set(own) - {"features", "converged"} or own.get("features", "pixels") != "pixels":
            typer.echo(f"{who}: " + ", ".join(f"{name} {value}" for name, value in own.items()))
    if isinstance(found, Evaluation):
        typer.echo(found.text)
        if found.file is not None:
            progress.say(f"Kept in {found.file}")


def _plain(result: Any) -> dict[str, Any]:
    return asdict(result) if is_dataclass(result) and not isinstance(result, type) else dict(result)
