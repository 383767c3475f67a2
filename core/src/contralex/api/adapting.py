"""A published encoder trained further on one's own images, and compared with its untouched weights on the way."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contralex import progress
from contralex.api.adaptation import ADAPTATION, ADAPTED, FIGURES, KNN, PUBLISHED, Adapted, Evaluated, Plan, intervals
from contralex.api.arguments import checked
from contralex.api.fitting import fit_settings
from contralex.api.settings import PathLike, Sets, path_text, set_texts
from contralex.errors import ContralexError, did_you_mean, find_similar, remedy
from contralex.files import expand_user, write_text
from contralex.plugins.registry import registry
from contralex.recipes.documents import chain
from contralex.recipes.layers import Resolved, resolve
from contralex.recipes.paths import absolute
from contralex.training import folders
from contralex.training.checkpoints import read, retention
from contralex.training.folders import SPEC

if TYPE_CHECKING:
    from contralex.importing.published import Choice

_EPOCHS, _PATIENCE, _SIZE = 20, 3, 224
_BATCH = 64
_DRAWS = 4  # random views of an image, for the figures without labels


@checked
def adapt(
    encoder: str | None = None,
    data: PathLike | None = None,
    *,
    weights: PathLike | None = None,
    out: PathLike | None = None,
    epochs: int | None = None,
    every: int | None = None,
    patience: int | None = None,
    size: int | None = None,
    recipe: str | None = None,
    by: str | None = None,
    sets: Sets = None,
    resume: bool = False,
) -> Adapted:
    """Go on pre-training a published encoder on your own images, as long as it helps.

    ``encoder``: its name, such as ``dinov2-vits14``, ``dino-vitb16``, ``moco-v3-vits16``, ``mae-vitb16``, or
    ``timm/NAME``. ``data``: the images. ``weights``: the published file; without it, one of the published name in this
    folder or in the cache of ``torch.hub``. ``out``: the folder; without it one below ``runs``. ``epochs``: at most;
    without it, 20. ``every``: epochs from one evaluation to the next; without it, a tenth of all. ``patience``:
    evaluations that may be no better than the best one before it stops; without it, 3. ``size``: pixels of the large
    crops; without it, 224. ``recipe``: the one to go on with. ``by``: the figure that decides; without it, ``knn_top1``
    where images have labels, else ``lidar``, or ``rankme`` of a method whose views are masked. ``sets``: single values
    by their paths. ``resume``: go on with the adaptation in ``out``, which has its settings: nothing else is given.

    The untouched weights are evaluated first, and the adapted ones beside them; the best checkpoint is kept. Raises
    :class:`ContralexError`.

    >>> import contralex
    >>> found = contralex.adapt("dinov2-vits14", "photos", weights="dinov2_vits14_pretrain.pth")
    >>> print(found)  # a line for each evaluation, and which checkpoint to use
    """
    folder = None if out is None else expand_user(str(path_text(out)))
    own = set_texts(sets)
    with progress.listening("stderr"):
        if resume:
            numbers = {"--epochs": epochs, "--every": every, "--patience": patience, "--size": size}
            others = {"--data": data, "--weights": weights, "--recipe": recipe, "--by": by, "--set": own or None}
            return _go_on(_read_begun(folder, {"ENCODER": encoder, **numbers, **others}))
        if encoder is None or data is None:
            raise ContralexError("adapt: give the name of a published encoder, and the images with --data")
        file = None if weights is None else expand_user(str(path_text(weights)))
        epochs, patience, size = (
            default if value is None else value
            for value, default in ((epochs, _EPOCHS), (patience, _PATIENCE), (size, _SIZE))
        )
        _check(epochs, every, patience, size, by)
        begun = _begin(encoder, str(path_text(data)), file, folder, epochs, every, patience, size, recipe, by, own)
        return _go_on(begun)


def _read_begun(folder: Path | None, given: Mapping[str, object]) -> Adapted:
    """The adaptation to go on with. ``given``: the other options, by their names, none of which it takes."""
    if folder is None:
        raise ContralexError("--resume: say which adaptation with --out, such as --out runs/my-adaptation")
    found = Adapted.read(folder)
    extra = [name for name, value in given.items() if value is not None]
    if extra:
        raise ContralexError(
            f"--resume goes on with the settings of {folder}; for others begin a new adaptation, or leave "
            f"{', '.join(extra)} out:" + remedy("contralex", "adapt", "--resume", "--out", folder)
        )
    return found


def _begin(
    name: str,
    data: str,
    weights: Path | None,
    out: Path | None,
    epochs: int,
    every: int | None,
    patience: int,
    size: int,
    recipe: str | None,
    by: str | None,
    own: list[str],
) -> Adapted:
    """Choose the settings, and write the untouched weights as a run."""
    from contralex.api.adaptation_check import check_adaptation
    from contralex.importing import imports, published

    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ContralexError(
            f"--out {out} is there already; choose another folder, or go on:"
            + remedy("contralex", "adapt", "--resume", "--out", out)
        )
    choice = published.choose(name, recipe)
    file = published.find_weights(choice.encoder, weights)
    interval = every or max(1, epochs // 10)
    texts = [*_settings(choice, epochs, interval), *own]
    resolved = _resolve(choice, data, texts)
    texts = [*_crops(choice, size, resolved), *_pixel_values(choice, resolved), *texts]

    with progress.during(f"Reading {file}"):
        resolved = _resolve(choice, data, texts)
        candidate = imports.match(file, resolved, [each.name for each in chain(resolved.run.name)], data_given=True)
        imports.check(
            candidate,
            f"Give the file of {name}, which is published at {choice.encoder.url}, or by --set the sizes of this one.",
        )

    def resolve_with(more: Sequence[str]) -> Resolved:
        return _resolve(choice, data, [*texts[: len(texts) - len(own)], *more, *own])

    fitted = fit_settings(resolve_with, 1, None, resume=False)
    texts = [*texts[: len(texts) - len(own)], *fitted, *own]
    resolved = _resolve(choice, data, texts)
    check_adaptation(resolved, by)
    named = folders.name_by_time(f"{name.replace('/', '-')}-adapted")
    place = folders.make_new(named)[0] if out is None else out
    imports.write_run(replace(candidate, resolved=resolved), place / PUBLISHED)
    plan = Plan(name, choice.adaptation.recipe, str(file), _from_any_folder(data), texts, interval, patience, by)
    begun = Adapted(place, plan)
    _keep(begun)
    return begun


def _go_on(found: Adapted) -> Adapted:
    """Evaluate, and train up to the next evaluation, until the end or until it no longer helps."""
    from contralex.training.run import train_in_folder
    from contralex.training.stop_errors import RunStopped

    plan, folder = found.plan, found.folder
    init = f"init={{checkpoint: {json.dumps(str(folder / PUBLISHED))}}}"
    resolved = resolve(plan.recipe, data=plan.data, sets=[*plan.sets, init])
    if not found.rows:
        found = _add(found, 0, folder / PUBLISHED)
    run = folder / ADAPTED
    for epoch in intervals(resolved.run.train.epochs, plan.every):
        if epoch <= found.rows[-1].epoch:
            continue
        if found.no_longer_helps:
            break
        begun = (run / SPEC).is_file()
        try:
            train_in_folder(resolved, run, begun, to="stderr", evaluate=False, until_epoch=epoch)
        except RunStopped as stopped:  # the run alone would go on without evaluations
            raise stopped.with_sentence(
                "Stopped; its checkpoint is written. Go on with:"
                + remedy("contralex", "adapt", "--resume", "--out", folder)
            ) from None
        newest = read.steps(run / "checkpoints")[0]
        if newest == folder / found.rows[-1].checkpoint:  # train.max_steps ended it
            break
        found = _add(found, epoch, newest)
        for path in read.steps(run / "checkpoints"):
            if path not in (newest, folder / found.best.checkpoint):
                _remove(path)
    found = replace(found, stopped=found.rows[-1].epoch < resolved.run.train.epochs)
    _keep(found)
    return found


def _add(found: Adapted, epoch: int, checkpoint: Path) -> Adapted:
    """With one more evaluation, which is written before anything else is done."""
    figures, test_samples = _measure(checkpoint)
    if found.plan.by is not None and figures.get(found.plan.by) is None:
        there = [name for name, value in figures.items() if value is not None]
        again = ("contralex", "adapt", found.plan.encoder, "--data", found.plan.data)
        raise ContralexError(
            f"--by {found.plan.by}: these images and this method have no such figure; there are {', '.join(there)}. "
            "Begin a new adaptation by one of them:" + remedy(*again, "--by", there[0])
        )
    step = read.open_checkpoint(checkpoint, ()).step
    row = Evaluated(epoch, step, str(checkpoint.relative_to(found.folder)), figures, test_samples)
    found = replace(found, rows=[*found.rows, row])
    _keep(found)
    headings, cells = found.table()
    said = ", ".join(f"{name} {cell}" for name, cell in zip(headings[1:], cells[-1][1:], strict=True))
    progress.say(f"{cells[-1][0]}: {said}")
    return found


def _remove(checkpoint: Path) -> None:
    """And the features by which it was evaluated, first: they are known by its weights."""
    from contralex.training.feature_cache import remove_features

    with suppress(ContralexError):  # one that is damaged has none
        remove_features(read.open_checkpoint(checkpoint, ()))
    retention.remove(checkpoint)


def _measure(checkpoint: Path) -> tuple[dict[str, float | None], int]:
    """The figures of a checkpoint on its run's data: without labels, and with them where there are any. And how many
    images kNN classified."""
    from contralex.evaluation.base import NoLabels
    from contralex.evaluation.measurements import Quality
    from contralex.training.evaluate_run import evaluate, measure

    quality = measure(Quality(draws=_DRAWS, untrained=False), checkpoint).figures
    figures = {name: _finite(quality.get(name)) for name in FIGURES if name != KNN}
    try:
        accuracy = evaluate("knn", checkpoint, baselines=())
    except NoLabels:
        return figures, 0
    return {KNN: accuracy.figures["top1"], **figures}, int(accuracy.protocol["test_samples"])


def _finite(value: float | None) -> float | None:
    """None of what is no number, as a spread of one image is: JSON has no such number."""
    return value if value is not None and math.isfinite(value) else None


def _settings(choice: Choice, epochs: int, every: int) -> Iterator[str]:
    """Those of the network, of the recipe on few images, and of evaluations."""
    yield from _texts(choice.encoder.all_settings())
    yield from _texts(choice.adaptation.settings)
    yield f"train.epochs={epochs}"
    yield f"train.batch_size={_BATCH}"
    yield f"train.checkpoint={{every: {every}, keep_every: {every}, keep_last: 1}}"
    yield "eval.knn.baselines=false"
    yield "eval.linear=null"


def _crops(choice: Choice, size: int, resolved: Resolved) -> Iterator[str]:
    """Sizes of crops that the patches divide, and of the patches of masks."""
    if not choice.adaptation.crops and size != _SIZE:
        raise ContralexError(f"--size {size}: the crops of {choice.adaptation.recipe} have one size alone, {_SIZE}")
    backbone = resolved.data["method"]["encoder"]["backbone"]
    named = re.search(r"patch(\d+)", str(backbone.get("name", "")))
    patch = int(backbone.get("patch") or (named[1] if named else 32))
    for path, fraction in choice.adaptation.crops.items():
        yield f"{path}={max(1, round(size * fraction / patch)) * patch}"
    for path in choice.adaptation.patches:
        yield f"{path}={patch}"


def _pixel_values(choice: Choice, resolved: Resolved) -> Iterator[str]:
    """The mean and deviation with which the encoder was trained, for every view that has some."""
    if choice.encoder.normalize:
        for path in _find_blocks("normalize", resolved.data["method"]["views"], "method.views"):
            yield f"{path}={json.dumps(dict(choice.encoder.normalize))}"


def _find_blocks(name: str, spec: Mapping[str, Any], path: str) -> Iterator[str]:
    """The paths of the blocks of this name below ``path``."""
    for key, value in spec.items():
        if isinstance(value, Mapping):
            yield from [f"{path}.{key}"] if key == name else _find_blocks(name, value, f"{path}.{key}")


def _from_any_folder(data: str) -> str:
    """As a resume in another folder finds it: a whole path, where it is no kind of data."""
    return data if data in registry().kinds("data") else absolute(data)


def _resolve(choice: Choice, data: str, texts: Sequence[str]) -> Resolved:
    return resolve(choice.adaptation.recipe, data=data, sets=texts)


def _texts(settings: Mapping[str, Any]) -> Iterator[str]:
    yield from set_texts(dict(settings))


def _keep(found: Adapted) -> None:
    write_text(found.folder / ADAPTATION, json.dumps(found.to_dict(), indent=1) + "\n")


def _check(epochs: int, every: int | None, patience: int, size: int, by: str | None) -> None:
    for name, value in (("epochs", epochs), ("every", every), ("patience", patience), ("size", size)):
        if value is not None and value < 1:
            raise ContralexError(f"--{name} is {value}, and must be at least 1")
    if by is not None and by not in FIGURES:
        way = did_you_mean(find_similar(by, FIGURES)) or f"there are {', '.join(FIGURES)}"
        raise ContralexError(f"--by {by}: there is no such figure; {way}")
