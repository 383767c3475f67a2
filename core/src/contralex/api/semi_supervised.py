"""Fine-tuning and distillation: the package contralex-simclr says which runs follow, and they are trained here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from contralex import progress
from contralex.api.arguments import checked
from contralex.api.runs import Run
from contralex.api.settings import PathLike, Sets, path_text, set_texts
from contralex.api.training import train_resolved
from contralex.errors import ContralexError, remedy
from contralex.files import expand_user


@checked
def finetune(
    run: PathLike,
    *,
    labels: float = 0.1,
    from_layer: int | None = None,
    data: PathLike | None = None,
    epochs: int | None = None,
    sets: Sets = None,
    out: PathLike | None = None,
    processes: int = 1,
    allow_code: bool = False,
) -> Run:
    """Train a run's encoder further as a classifier, on some of the labels. Needs contralex-simclr.

    ``labels``: the fraction of the labels to use, in (0, 1], the same number of each class. ``from_layer``: how many
    layers of the projector stay below the classifier. The other arguments are those of :func:`contralex.train`.

    >>> import contralex
    >>> tuned = contralex.finetune("runs/my-run", labels=0.1, sets={"train.max_steps": 2}, out="runs/tuned")
    >>> tuned.results["steps"]
    2
    """
    resolving = _simclr("finetune")
    with progress.listening("stderr"):
        resolved = resolving.resolve_finetuning(
            run, labels, from_layer, path_text(data), set_texts(sets, epochs), allow_code
        )
        return train_resolved(resolved, _folder(out), processes, allow_code)


@checked
def distill(
    teacher: PathLike,
    *,
    student: PathLike = "self",
    preset: str | None = None,
    temperature: float | None = None,
    hard: bool = False,
    threshold: float | None = None,
    noisy: bool = False,
    alpha: float = 1.0,
    from_layer: int | None = None,
    data: PathLike | None = None,
    epochs: int | None = None,
    sets: Sets = None,
    out: PathLike | None = None,
    processes: int = 1,
    allow_code: bool = False,
) -> Run:
    """Train a student on the probabilities that a fine-tuned run gives to all images. Needs contralex-simclr.

    ``teacher``: a run that :func:`contralex.finetune` made. ``student``: ``self``, the teacher's backbone from random
    weights; or a run, whose encoder is trained further; or a recipe, with a ``preset`` of its own. ``temperature``
    divides the logits of both. ``hard``: teach the most likely class alone. ``threshold``: leave images out whose most
    likely class has a lower probability. ``noisy``: strong augmentation for the student, none for the teacher.
    ``alpha``: the weight of the teacher's probabilities, in (0, 1]; the labels that it learned from have the rest.

    >>> import contralex
    >>> student = contralex.distill("runs/tuned", sets={"train.max_steps": 2}, out="runs/student")
    >>> student.results["steps"]
    2
    """
    resolving = _simclr("distill")
    with progress.listening("stderr"):
        resolved = resolving.resolve_distillation(
            teacher,
            str(path_text(student)),
            preset,
            temperature,
            hard,
            threshold,
            noisy,
            alpha,
            from_layer,
            path_text(data),
            set_texts(sets, epochs),
            allow_code,
        )
        return train_resolved(resolved, _folder(out), processes, allow_code)


def _simclr(function: str) -> Any:
    try:
        return import_module("contralex_simclr.resolving")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "contralex_simclr":
            raise
        install = remedy("pip", "install", "contralex-simclr")
        raise ContralexError(f"{function} comes with contralex-simclr, which is not installed:{install}") from None


def _folder(out: PathLike | None) -> Path | None:
    return None if out is None else expand_user(str(path_text(out)))
