"""Evaluation of a checkpoint, after training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from contralex import progress
from contralex.errors import ContralexError, remedy
from contralex.evaluation.features import NoLabels
from contralex.evaluation.knn import PIXELS, THIS, UNTRAINED, KNNResult, evaluate_knn
from contralex.evaluation.linear import LinearResult, evaluate_linear
from contralex.recipes.run_spec import EvalSpec, KNNSpec, LinearSpec
from contralex.training import build, devices
from contralex.training.build import load_encoder
from contralex.training.checkpoints.read import open_checkpoint

if TYPE_CHECKING:
    from contralex.lookup.slots import Encoder

_Spec = TypeVar("_Spec", KNNSpec, LinearSpec)
_Result = TypeVar("_Result", KNNResult, LinearResult)


def knn(
    checkpoint: Path, data: str | None = None, sets: Sequence[str] = (), *, allow_code: bool = False
) -> dict[str, KNNResult]:
    """Weighted kNN of a checkpoint's encoder, beside the untrained encoder and raw pixels.

    ``data`` and ``sets`` change the checkpoint's spec as ``--data`` and ``--set`` do: another data set, k, ...
    ``allow_code``: the Python files that it names in ``code`` may be run.
    Raises :class:`ContralexError` where the data has no labels or no split to judge with.
    """
    return _judged(evaluate_knn, lambda spec: spec.knn or KNNSpec(), checkpoint, data, sets, allow_code)


def linear(
    checkpoint: Path, data: str | None = None, sets: Sequence[str] = (), *, allow_code: bool = False
) -> dict[str, LinearResult]:
    """A linear probe of a checkpoint's encoder; otherwise as :func:`knn`."""
    return _judged(evaluate_linear, lambda spec: spec.linear or LinearSpec(), checkpoint, data, sets, allow_code)


def _judged(
    judge: Callable[..., _Result],
    spec_of: Callable[[EvalSpec], _Spec],
    checkpoint: Path,
    data: str | None,
    sets: Sequence[str],
    allow_code: bool,
) -> dict[str, _Result]:
    from contralex.recipes.code_files import permission
    from contralex.recipes.layers import resolve_data

    if any(path.startswith("method.encoder") for path in sets):
        raise ContralexError("--set method.encoder: the encoder of a checkpoint cannot be changed.")
    with permission(allow_code):
        found = open_checkpoint(checkpoint)
        run = resolve_data(found.resolved().data, data=data, sets=sets).run
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        source, views = build.source(run.data), run.method.views.build()
        progress.say(f"{found.folder} on {device.type}; {run.data.kind_name()}: {source.describe()}")
        spec = spec_of(run.eval)
        encoders: dict[str, Encoder | None] = {THIS: load_encoder(found.folder).to(device)}
        if spec.baselines:
            encoders |= {UNTRAINED: build.encoder(run).to(device), PIXELS: None}
        workers = devices.workers(run.train.workers, device.type)
        results = {}
        for name, encoder in encoders.items():
            progress.say(f"Evaluating: {name}")
            options = (run.eval.batch_size, device, workers)
            try:
                results[name] = judge(encoder, source, views, spec, *options, baseline=name != THIS)
            except NoLabels as error:
                raise NoLabels(f"{error} Give data that have labels:{remedy('--data', 'FOLDER')}") from None
        return results
