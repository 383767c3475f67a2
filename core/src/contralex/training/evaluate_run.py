"""Evaluation of a checkpoint, after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from contralex import progress
from contralex.errors import ContralexError, remedy
from contralex.evaluation.base import PIXELS, THIS, UNTRAINED, Accuracy, EvalContext, Evaluator, NoLabels
from contralex.evaluation.evaluators import evaluator_named
from contralex.recipes.code_files import permission, used_plugins
from contralex.training import build, devices
from contralex.training.checkpoints.manifest import MODEL
from contralex.training.checkpoints.read import open_checkpoint
from contralex.training.feature_cache import feature_cache

if TYPE_CHECKING:
    from contralex.lookup.slots import Encoder


def evaluate(
    evaluator: str | Evaluator,
    checkpoint: Path,
    data: str | None = None,
    sets: Sequence[str] = (),
    *,
    baselines: Sequence[str] | None = None,
    allow_code: bool = False,
) -> dict[str, Accuracy]:
    """Evaluate a checkpoint's encoder by one evaluator: an object, or a name (``knn``, ``linear``, ...).

    ``baselines``: what is evaluated beside it, ``UNTRAINED`` or ``PIXELS``; None: as the evaluator says.
    ``data`` and ``sets`` change the checkpoint's spec as ``--data`` and ``--set`` do: another data set, k, ...
    ``allow_code``: the Python files that it names in ``code`` may be run.
    Raises :class:`ContralexError` where the data has no labels or no split to evaluate on.
    """
    if any(path.startswith("method.encoder") for path in sets):
        raise ContralexError("--set method.encoder: the encoder of a checkpoint cannot be changed.")
    with permission(allow_code):
        found = open_checkpoint(checkpoint, [MODEL])
        if isinstance(evaluator, Evaluator):
            run = found.resolved().run
            data_spec = evaluator.choose_data(run, data, sets) or found.resolved(data=data, sets=sets).run.data
        else:
            resolved = found.resolved(data=data, sets=sets)
            run, data_spec = resolved.run, resolved.run.data
            evaluator = evaluator_named(evaluator, run, used_plugins(resolved.plugins, resolved.code))
        if baselines is None:
            baselines = evaluator.baselines
        device = devices.to_evaluate_on()
        source, views = build.read_source(data_spec), run.method.views.build()
        progress.say(f"{found.folder} on {device.type}; {data_spec.kind_name()}: {source.describe()}")
        channels_last = run.train.channels_last
        own = devices.place(build.encoder_of(found, run), device, channels_last)
        encoders: dict[str, Encoder | None] = {THIS: own}
        cache = feature_cache(found, run, own, views, device.type)
        caches = {THIS: cache}
        if UNTRAINED in baselines:
            encoders[UNTRAINED] = devices.place(build.encoder(run), device, channels_last)
            caches[UNTRAINED] = cache and cache.of(weights=f"untrained, seed {run.train.seed}")
        if PIXELS in baselines:
            encoders[PIXELS] = None
            caches[PIXELS] = cache and cache.of(weights="none")
        context = EvalContext(
            source, views, run.eval.batch_size, device, devices.workers(run.train.workers, device.type)
        )
        results = {}
        for who, encoder in encoders.items():
            progress.say(f"Evaluating: {who}")
            try:
                results[who] = evaluator.evaluate(encoder, replace(context, cache=caches[who]), baseline=who != THIS)
            except NoLabels as error:
                if "\n" in str(error):  # it ends in the option that mends it
                    raise
                raise NoLabels(f"{error} Give data that have labels:{remedy('--data', 'FOLDER')}") from None
        return results
