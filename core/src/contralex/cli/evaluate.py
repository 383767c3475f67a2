"""``contralex eval``: a checkpoint by one evaluator. Imports no torch before the options are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import typer

from contralex import progress
from contralex.cli.options import AllowCode, Checkpoint, Data, Json, Sets, print_json, print_table


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
linear = command_for("linear", "linear probe", "Train a linear classifier on frozen features." + _BESIDE)
classify = command_for(
    "classify",
    "classified",
    "Evaluate a classifier, such as a fine-tuned run.\n\n"
    "The encoder's embeddings are read as the logits of the classes.",
)


def _evaluate(
    name: str, label: str, run: Checkpoint, data: Data, sets: Sets, allow_code: AllowCode, as_json: Json
) -> None:
    from contralex.api import runs

    progress.listen("stderr")
    _print(label, runs.Run(run, allow_code=allow_code).evaluate(name, data, sets), as_json)


def _print(label: str, found: Mapping[str, Any], as_json: bool) -> None:
    figures: dict[str, dict[str, Any]] = {name: _plain(result) for name, result in found.items()}
    if as_json:
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


def _plain(result: Any) -> dict[str, Any]:
    return asdict(result) if is_dataclass(result) and not isinstance(result, type) else dict(result)
