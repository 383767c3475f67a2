"""``finetune`` and ``distill``: they write the spec that follows from a run's, and train it as ``train`` does."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contralex import progress
from contralex.cli.options import AllowCode, Data, Epochs, Sets, must_exist, path, with_epochs
from contralex.errors import ContralexError

if TYPE_CHECKING:
    from contralex.data.base import Source, Split
    from contralex.recipes.layers import Resolved
    from contralex.recipes.semi_supervised import Student
    from contralex.training.checkpoints.read import Checkpoint

FromLayer = Annotated[
    int | None,
    typer.Option(
        "--from-layer",
        min=0,
        help="How many layers of the projector stay below the classifier. Without it: the first, where there are "
        "several and not all labels are used.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None, typer.Option(parser=path, help="The run's folder. Without it: runs/NAME-TIME.", show_default=False)
]
Processes = Annotated[int, typer.Option(min=1, help="How many to start, as for `contralex train`.")]


def finetune(
    run: Annotated[
        Path,
        typer.Argument(parser=path, metavar="RUN", help="A run's folder, or one checkpoint's.", show_default=False),
    ],
    labels: Annotated[
        float, typer.Option(help="The share of the labels to use, in (0, 1]; the same number of each class.")
    ] = 0.1,
    from_layer: FromLayer = None,
    data: Data = None,
    epochs: Epochs = None,
    sets: Sets = None,
    out: Out = None,
    processes: Processes = 1,
    allow_code: AllowCode = False,
) -> None:
    """Train a run's encoder further as a classifier, on some of the labels.

    The settings are SimCLR v2's where there are labels enough for its batches of 1024, and SGD with small batches
    elsewhere. To train the same from random weights: --set init=null
    """
    from contralex.cli.run import is_launched
    from contralex.recipes.code_files import permission
    from contralex.recipes.semi_supervised import finetuned, whole_data

    progress.listen("stdout")
    if not 0 < labels <= 1:
        raise ContralexError(f"--labels {labels:g}: give the share of the labels to use, above 0 and at most 1")
    with permission(allow_code):
        found = _opened(run)
        before = _with_data(found, data)
        whole = whole_data(before.data["data"])
        source = _source({"kind": "labelled", "of": whole, "share": labels}, before.data)
        classes, used = _classes(source), len(source.train())
        mapping = finetuned(
            before.data,
            str(found.folder),
            data=whole,
            share=labels,
            classes=classes,
            samples=used,
            from_layer=from_layer,
        )
    if not is_launched():  # else every process would
        typer.echo(f"{used} labels of {classes} classes ({100 * labels:.3g} %, and at least one of each class).")
    _train(mapping, "contralex finetune", epochs, sets, out, processes, allow_code)


def distill(
    teacher: Annotated[
        Path,
        typer.Argument(
            parser=path, metavar="TEACHER", help="A fine-tuned run's folder, or one checkpoint's.", show_default=False
        ),
    ],
    student: Annotated[
        str,
        typer.Option(
            help="`self`: the teacher's backbone, from random weights; or a run, whose encoder is trained further; or "
            "a recipe, whose encoder starts from random weights."
        ),
    ] = "self",
    preset: Annotated[str | None, typer.Option(help="Of the student's recipe.", show_default=False)] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Divides both sides' logits. Without it: 0.1 for self, 1 for others.", show_default=False),
    ] = None,
    hard: Annotated[bool, typer.Option("--hard", help="Teach the most likely class alone.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option(help="Leave images out whose most likely class has a lower probability.", show_default=False),
    ] = None,
    noisy: Annotated[
        bool, typer.Option("--noisy", help="Noisy Student: strong augmentation for the student, none for the teacher.")
    ] = False,
    from_layer: FromLayer = None,
    data: Data = None,
    epochs: Epochs = None,
    sets: Sets = None,
    out: Out = None,
    processes: Processes = 1,
    allow_code: AllowCode = False,
) -> None:
    """Train a student on what a fine-tuned run says of all images, without labels."""
    from contralex.recipes.code_files import permission
    from contralex.recipes.semi_supervised import distilled, whole_data

    progress.listen("stdout")
    with permission(allow_code):
        found = _opened(teacher)
        before = _with_data(found, data).data
        chosen = _student(student, preset, before, from_layer, allow_code)
        mapping = distilled(
            before,
            str(found.folder),
            student=chosen,
            samples=len(_source(whole_data(before["data"]), before).train()),
            temperature=temperature if temperature is not None else 0.1 if student == "self" else 1.0,
            hard=hard,
            threshold=threshold,
            noisy=noisy,
        )
    _train(mapping, "contralex distill", epochs, sets, out, processes, allow_code)


def _opened(path: Path) -> Checkpoint:
    from contralex.training.checkpoints.read import open_checkpoint

    must_exist(path)
    return open_checkpoint(path)


def _with_data(found: Checkpoint, data: str | None) -> Resolved:
    """The run's spec; where ``--data`` says so, on other data."""
    from contralex.recipes.layers import resolve_data

    before = found.resolved()
    return before if data is None else resolve_data(before.data, data=data, where=str(found.folder))


def _source(data: dict[str, Any], run: dict[str, Any]) -> Source:
    from contralex.recipes.layers import resolve_data
    from contralex.training import build

    return build.source(resolve_data({**run, "data": data}).run.data)


def _classes(source: Source) -> int:
    """As many as the splits name, or as their labels count."""
    test = source.test()
    splits: list[Split] = [source.train(), *([test] if test is not None else [])]
    return max(max(len(split.classes or ()), 1 + max(split.labels or (-1,))) for split in splits)


def _student(
    wanted: str, preset: str | None, teacher: dict[str, Any], from_layer: int | None, allow_code: bool
) -> Student:
    from contralex.files import expand_user, mode
    from contralex.recipes.layers import resolve
    from contralex.recipes.semi_supervised import Student

    folder = expand_user(wanted)
    is_run = wanted != "self" and stat.S_ISDIR(mode(folder)) and bool(wanted.strip())
    if preset is not None and (wanted == "self" or is_run):
        raise ContralexError("--preset is one of a recipe's; give the recipe with --student")
    if wanted == "self":
        if from_layer:
            raise ContralexError("--from-layer: the student `self` has no projector of its own; give a run or a recipe")
        return Student(teacher["method"]["encoder"])
    if not is_run:
        recipe = resolve(wanted, preset=preset, allow_code=allow_code).data
        return Student(recipe["method"]["encoder"], from_layer or 0, None, tuple(recipe.get("code", ())))
    found = _opened(folder)
    run = found.resolved().data
    encoder = run["method"]["encoder"]
    kept = int(len(encoder.get("projector", ())) > 1) if from_layer is None else from_layer
    return Student(encoder, kept, str(found.folder), tuple(run.get("code", ())))


def _train(
    mapping: dict[str, Any],
    where: str,
    epochs: int | None,
    sets: list[str] | None,
    out: Path | None,
    processes: int,
    allow_code: bool,
) -> None:
    from contralex.cli.run import is_launched
    from contralex.recipes.code_files import permission
    from contralex.recipes.layers import resolve_data
    from contralex.training.run import train

    said = with_epochs(sets, epochs)
    resolved = resolve_data(mapping, sets=said, allow_code=allow_code, where=where)
    if processes > 1 and not is_launched():
        from tempfile import TemporaryDirectory

        from contralex.training.launch import launch

        options = [*([f"--out={out}"] if out is not None else []), *(["--allow-code"] if allow_code else [])]
        with TemporaryDirectory() as folder:  # the run's own is made when the run can begin
            spec = Path(folder) / "spec.yaml"
            spec.write_text(resolved.to_yaml(), "utf-8")
            raise typer.Exit(launch(["train", *options, "--", str(spec)], processes))
    with permission(allow_code):
        train(resolved, out)
