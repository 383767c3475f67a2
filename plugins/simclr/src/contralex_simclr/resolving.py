"""The runs that follow from a finished one, resolved: its checkpoint is opened, and its data are read and counted.

Nothing is printed or started; ``contralex finetune`` and ``contralex distill`` train what these functions return.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contralex import resolve
from contralex.plugin import (
    ContralexError,
    open_checkpoint,
    permission,
    progress,
    read_source,
    resolve_data,
)
from contralex_simclr.semi_supervised import Student, all_data, derive_distillation, derive_finetuning

if TYPE_CHECKING:
    from contralex.plugin import Checkpoint, Resolved, Source, Split


def resolve_finetuning(
    run: str | os.PathLike[str],
    labels: float = 0.1,
    from_layer: int | None = None,
    data: str | None = None,
    sets: Sequence[str] = (),
    allow_code: bool = False,
) -> Resolved:
    """The run that trains a run's encoder further as a classifier, on some of the labels.

    ``run``: a run's folder, or one checkpoint's. ``labels``: the fraction of the labels to use, in (0, 1], the same
    number of each class. ``from_layer``: how many layers of the projector stay; None: the first, where there are
    several and not all labels are used. ``data``: other data than the run's, as ``--data``. ``sets``: as ``--set``.
    ``allow_code``: the Python files that the run's spec names may be run.
    """
    if not 0 < labels <= 1:
        raise ContralexError(f"--labels {labels:g}: give the fraction of the labels to use, above 0 and at most 1")
    with permission(allow_code):
        checkpoint = open_checkpoint(Path(run))
        before = _on_data(checkpoint, data)
        whole = all_data(before.data["data"])
        source = _read_data({"kind": "labelled", "of": whole, "share": labels}, before.data)
        classes, used = _count_classes(source), len(source.train())
        mapping = derive_finetuning(
            before.data,
            str(checkpoint.folder),
            data=whole,
            fraction=labels,
            classes=classes,
            samples=used,
            from_layer=from_layer,
        )
    progress.say(f"{used} labels of {classes} classes ({100 * labels:.3g} %, and at least one of each class).")
    return resolve_data(mapping, sets=sets, allow_code=allow_code, where="contralex finetune")


def resolve_distillation(
    teacher: str | os.PathLike[str],
    student: str = "self",
    preset: str | None = None,
    temperature: float | None = None,
    hard: bool = False,
    threshold: float | None = None,
    noisy: bool = False,
    alpha: float = 1.0,
    from_layer: int | None = None,
    data: str | None = None,
    sets: Sequence[str] = (),
    allow_code: bool = False,
) -> Resolved:
    """The run in which a student learns the probabilities that a fine-tuned run gives to all images.

    ``teacher``: the folder of a run that ``finetune`` made, or one checkpoint's. ``student``: ``self``, the teacher's
    backbone from random weights; or a run, whose encoder is trained further; or a recipe, with a ``preset`` of its own,
    whose encoder starts from random weights. ``temperature`` divides the logits of both; None: 0.1 for ``self``, 1 for
    others. ``hard``: teach the most likely class alone. ``threshold``: leave images out whose most likely class has a
    lower probability. ``noisy``: strong augmentation for the student, none for the teacher. ``alpha``: the weight of
    the teacher's probabilities, in (0, 1]; the labels that the teacher learned from have the rest. ``from_layer``,
    ``data``, ``sets`` and ``allow_code``: as in :func:`resolve_finetuning`.
    """
    if not 0 < alpha <= 1:
        raise ContralexError(f"--alpha {alpha:g}: give the weight of the teacher's answers, above 0 and at most 1")
    with permission(allow_code):
        checkpoint = open_checkpoint(Path(teacher))
        before = _on_data(checkpoint, data).data
        mapping = derive_distillation(
            before,
            str(checkpoint.folder),
            student=_choose_student(student, preset, before, from_layer, allow_code),
            samples=len(_read_data(all_data(before["data"]), before).train()),
            temperature=temperature if temperature is not None else 0.1 if student == "self" else 1.0,
            hard=hard,
            threshold=threshold,
            noisy=noisy,
            alpha=alpha,
        )
    return resolve_data(mapping, sets=sets, allow_code=allow_code, where="contralex distill")


def _on_data(checkpoint: Checkpoint, data: str | None) -> Resolved:
    """The run's spec; on other ``data`` if they are given."""
    before = checkpoint.resolved()
    return before if data is None else resolve_data(before.data, data=data, where=str(checkpoint.folder))


def _read_data(data: dict[str, Any], run: dict[str, Any]) -> Source:
    return read_source(resolve_data({**run, "data": data}).run.data)


def _count_classes(source: Source) -> int:
    """As many as the splits name, or as their labels count."""
    test = source.test()
    splits: list[Split] = [source.train(), *([test] if test is not None else [])]
    return max(max(len(split.classes or ()), 1 + max(split.labels or (-1,))) for split in splits)


def _choose_student(
    wanted: str, preset: str | None, teacher: dict[str, Any], from_layer: int | None, allow_code: bool
) -> Student:
    folder = os.path.expanduser(wanted)
    is_run = wanted != "self" and bool(wanted.strip()) and os.path.isdir(folder)
    if preset is not None and (wanted == "self" or is_run):
        raise ContralexError("--preset is one of a recipe's; give the recipe with --student")
    if wanted == "self":
        if from_layer:
            raise ContralexError("--from-layer: the student `self` has no projector of its own; give a run or a recipe")
        return Student(teacher["method"]["encoder"])
    if not is_run:
        recipe = resolve(wanted, preset=preset, allow_code=allow_code).data
        return Student(recipe["method"]["encoder"], from_layer or 0, None, tuple(recipe.get("code", ())))
    checkpoint = open_checkpoint(Path(folder))
    run = checkpoint.resolved().data
    encoder = run["method"]["encoder"]
    kept = int(len(encoder.get("projector", ())) > 1) if from_layer is None else from_layer
    return Student(encoder, kept, str(checkpoint.folder), tuple(run.get("code", ())))
