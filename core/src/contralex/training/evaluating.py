"""Evaluation within a run: by its one list of evaluators, before the first step, between epochs and at the end."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from contralex.errors import remedy
from contralex.evaluation.base import PIXELS, THIS, UNTRAINED, Accuracy, EvalContext, Evaluator, NoLabels
from contralex.evaluation.remembered import RememberedFeatures
from contralex.lookup.slots import Encoder
from contralex.training import build, devices
from contralex.training.display import Display
from contralex.training.metrics import Metrics
from contralex.training.run_state import Run


class RunEvaluation:
    """All processes call each of its methods."""

    def __init__(self, run: Run, display: Display, metrics: Metrics) -> None:
        self.run = run
        self._display = display
        self._metrics = metrics
        self._without: set[str] = set()  # the evaluators that the data do not allow, which is said once

    def before_the_first_step(self) -> None:
        """What raw pixels and the untrained encoder reach; once in a run's life."""
        run = self.run
        with_baselines = [evaluator for evaluator in run.evaluators if evaluator.baselines]
        if run.resumed or not with_baselines:
            return
        untrained = devices.place(build.encoder(run.spec), run.device, run.spec.train.channels_last)
        subjects: dict[str, Encoder | None] = {UNTRAINED: untrained, PIXELS: None}
        stores = {who: RememberedFeatures() for who in subjects}
        for evaluator in with_baselines:
            reached = {
                who: self._evaluate(evaluator, subjects[who], stores[who], baseline=True) for who in evaluator.baselines
            }
            run.progress.baselines[evaluator.name] = {
                who: asdict(result) for who, result in reached.items() if result is not None
            }

    def between_epochs(self) -> dict[str, float]:
        """The metrics of the evaluators that are due after this epoch. The last one's are in the results."""
        run = self.run
        metrics: dict[str, float] = {}
        store = RememberedFeatures()
        for evaluator in run.evaluators:
            if evaluator.every and run.epoch % evaluator.every == 0 and run.step < run.total:
                result = self._evaluate(evaluator, run.method.encoder, store)
                if result is not None:
                    metrics[f"{evaluator.name}_top1"] = result.top1
        return metrics

    def at_the_end(self) -> dict[str, Any]:
        """The results by evaluator, and where it has baselines by what was evaluated."""
        results: dict[str, Any] = {}
        store = RememberedFeatures()
        for evaluator in self.run.evaluators:
            result = self._evaluate(evaluator, self.run.method.encoder, store)
            if result is None:
                continue
            found = asdict(result)
            baselines = self.run.progress.baselines.get(evaluator.name, {})
            results[evaluator.name] = {THIS: found, **baselines} if evaluator.has_baselines else found
        return results

    def _evaluate(
        self, evaluator: Evaluator, encoder: Encoder | None, store: RememberedFeatures, *, baseline: bool = False
    ) -> Accuracy | None:
        """The encoder (None: raw pixels), or None where the data do not allow it. ``store``: the features that other
        evaluators have extracted in the same moment."""
        run = self.run
        workers = devices.workers(run.spec.train.workers, run.device.type)
        context = EvalContext(run.source, run.views, run.spec.eval.batch_size, run.device, workers, store)
        try:
            with self._metrics.paused():
                return evaluator.evaluate(encoder, context, baseline=baseline)
        except NoLabels as reason:
            if evaluator.silenced_by and evaluator.name not in self._without:
                to_silence = remedy("--set", evaluator.silenced_by)
                self._display.say(f"{reason} So there is no {evaluator.figure} to report. To silence this:{to_silence}")
            self._without.add(evaluator.name)
            return None
