"""Evaluation of a checkpoint, after training: figures, and a record of them in the run's folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from contralex import progress
from contralex.data.workers import name_the_way
from contralex.errors import ContralexError, remedy
from contralex.evaluation.base import (
    PIXELS,
    THIS,
    UNTRAINED,
    Accuracy,
    EvalContext,
    Evaluator,
    Measurement,
    Measures,
    NoLabels,
)
from contralex.evaluation.evaluators import evaluator_named
from contralex.evaluation.records import Evaluation, R, Subject, make_record, write_record
from contralex.plugins.spec import Spec
from contralex.recipes.code_files import permission, used_plugins
from contralex.training import build, devices
from contralex.training.checkpoints.manifest import MODEL
from contralex.training.checkpoints.read import Checkpoint, open_checkpoint
from contralex.training.feature_cache import find_run_folder, make_feature_cache, read_weights_digest

if TYPE_CHECKING:
    from contralex.data.base import Source
    from contralex.evaluation.cache import FeatureCache
    from contralex.lookup.slots import Encoder
    from contralex.recipes.layers import Resolved
    from contralex.recipes.run_spec import RunSpec

_log = logging.getLogger("contralex")


def evaluate(
    evaluator: str | Evaluator,
    checkpoint: Path,
    data: str | None = None,
    sets: Sequence[str] = (),
    *,
    baselines: Sequence[str] | None = None,
    allow_code: bool = False,
) -> Evaluation[Accuracy]:
    """Evaluate a checkpoint's encoder by one evaluator: an object, or a name (``knn``, ``linear``, ...).

    ``baselines``: what is evaluated beside it, ``UNTRAINED`` or ``PIXELS``; None: as the evaluator says.
    ``data`` and ``sets`` change the checkpoint's spec as ``--data`` and ``--set`` do: another data set, k, ...
    ``allow_code``: the Python files that it names in ``code`` may be run.
    Raises :class:`ContralexError` where the data has no labels or no split to evaluate on.
    """
    _check(sets)
    with permission(allow_code):
        found = open_checkpoint(checkpoint, [MODEL])
        resolved = found.resolved()
        data_spec: Spec | None = None
        if isinstance(evaluator, Evaluator):
            data_spec = evaluator.choose_data(resolved.run, data, sets)
            data_spec = data_spec or found.resolved(data=data, sets=sets).run.data
        else:
            resolved = found.resolved(data=data, sets=sets)
            evaluator = evaluator_named(evaluator, resolved.run, used_plugins(resolved.plugins, resolved.code))
        opened = _Opened(found, resolved, data_spec or resolved.run.data)
        wanted = evaluator.baselines if baselines is None else baselines
        results: dict[str, Accuracy] = {}
        for who, encoder, context in opened.subjects(wanted):
            progress.say(f"Evaluating: {who}")
            with _say_what_mends(context.workers):
                results[who] = evaluator.evaluate(encoder, context, baseline=who != THIS)
        own = results[THIS]
        sentence = (
            f"{evaluator.settings(own.protocol)}: {_figures(own, evaluator.columns)}, {evaluator.samples(own.protocol)}"
        )
        return opened.keep(evaluator.name, results, sentence)


def measure(
    measurement: Measurement,
    checkpoint: Path,
    data: str | Spec | None = None,
    sets: Sequence[str] = (),
    *,
    allow_code: bool = False,
) -> Evaluation[Measures]:
    """Measure a checkpoint's encoder, on the run's data or on others, which need nothing but what an image has.

    ``data``: as ``--data``, or the spec of a data set.
    ``sets`` change the checkpoint's spec, such as ``eval.batch_size=64``; those of ``data`` only without ``data``.
    """
    _check(sets)
    with permission(allow_code):
        found = open_checkpoint(checkpoint, [MODEL])
        resolved = found.resolved(sets=sets)
        named = data if isinstance(data, Spec) else build.evaluation_data(resolved.run, data)
        opened = _Opened(found, resolved, named)
        subjects = opened.subjects(measurement.baselines)
        results: dict[str, Measures] = {}
        for who, encoder, context in subjects:
            if encoder is None:  # raw pixels, which no measurement asks for
                continue
            progress.say(f"Evaluating: {who}")
            with _say_what_mends(context.workers):
                results[who] = measurement.measure(encoder, context, resolved.run)
        own = results[THIS]
        return opened.keep(measurement.name, results, measurement.sentence(own.figures, own.protocol))


class _Opened:
    """A checkpoint that is open, and the data to evaluate it on."""

    def __init__(self, found: Checkpoint, resolved: Resolved, data_spec: Spec) -> None:
        self.found, self.resolved, self.data_spec = found, resolved, data_spec
        self.run: RunSpec = resolved.run
        self.device = devices.to_evaluate_on()
        self.source: Source = build.read_source(data_spec)
        progress.say(f"{found.folder} on {self.device.type}; {data_spec.kind_name()}: {self.source.describe()}")

    def subjects(self, baselines: Sequence[str]) -> list[tuple[str, Encoder | None, EvalContext]]:
        """The run itself, and its baselines, each with what it is evaluated on."""
        run, views = self.run, self.run.method.views.build()
        channels_last = run.train.channels_last
        own = devices.place(build.encoder_of(self.found, run), self.device, channels_last)
        cache = make_feature_cache(self.found, run, own, views, self.device.type)
        context = EvalContext(
            self.source,
            views,
            run.eval.batch_size,
            self.device,
            devices.workers(run.train.workers, self.device.type),
            cache,
        )
        subjects: list[tuple[str, Encoder | None, EvalContext]] = [(THIS, own, context)]
        if UNTRAINED in baselines:
            untrained = devices.place(build.encoder(run), self.device, channels_last)
            subjects.append((UNTRAINED, untrained, _with_weights(context, cache, f"untrained, seed {run.train.seed}")))
        if PIXELS in baselines:
            subjects.append((PIXELS, None, _with_weights(context, cache, "none")))
        return subjects

    def keep(self, name: str, results: Mapping[str, R], sentence: str) -> Evaluation[R]:
        record = make_record(name, results, self._subject(), sentence)
        folder, file = find_run_folder(self.found), None
        if folder is not None:
            try:
                file = write_record(folder, record)
            except OSError as error:
                _log.warning("The result is not kept: %s cannot be written to (%s).", folder, error.strerror)
        return Evaluation(results, record, file)

    def _subject(self) -> Subject:
        train, test = self.source.train(), self.source.test()
        return Subject(
            run={"name": self.run.name, "digest": self.resolved.digest},
            checkpoint={
                "path": str(self.found.folder),
                "step": self.found.step,
                "sha256": read_weights_digest(self.found),
            },
            data={
                "spec": self.data_spec.model_dump(mode="json"),
                "described": self.source.describe(),
                "train": train.fingerprint(),
                "test": None if test is None else test.fingerprint(),
            },
            device=self.device.type,
            plugins=self.found.state.plugins,
        )


def _with_weights(context: EvalContext, cache: FeatureCache | None, weights: str) -> EvalContext:
    return replace(context, cache=None if cache is None else cache.with_key(weights=weights))


def _check(sets: Sequence[str]) -> None:
    if any(path.startswith("method.encoder") for path in sets):
        raise ContralexError("--set method.encoder: the encoder of a checkpoint cannot be changed.")


def _figures(result: Accuracy, columns: Mapping[str, str]) -> str:
    found = vars(result)
    return ", ".join(f"{heading.removesuffix(' %')} {found[name]:.1%}" for name, heading in columns.items())


@contextmanager
def _say_what_mends(workers: int) -> Iterator[None]:
    """Say what to give where the data have no labels, and what to set where one of the ``workers`` dies."""
    try:
        with name_the_way(f"Try fewer of them:{remedy('--set', f'train.workers={workers // 2}')}"):
            yield
    except NoLabels as error:
        if "\n" in str(error):  # it ends in the option that mends it
            raise
        raise NoLabels(f"{error} Give data that have labels:{remedy('--data', 'FOLDER')}") from None
