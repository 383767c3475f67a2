"""What a run says and returns at its end: ``results.json``, the table of its figures, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from contralex.data.skipped import Skipped
from contralex.errors import remedy
from contralex.evaluation.base import PIXELS, THIS, Evaluator
from contralex.lookup import distributed
from contralex.training.display import Display, count
from contralex.training.evaluating import RunEvaluation
from contralex.training.metrics import Metrics
from contralex.training.run_state import Run


def evaluate_and_collect(
    run: Run, metrics: Metrics, evaluation: RunEvaluation, evaluate: bool = True
) -> dict[str, Any]:
    """What ``results.json`` holds. All processes call this. ``evaluate``: whether the evaluators measure the run."""
    losses = metrics.losses()
    results: dict[str, Any] = {
        "name": run.spec.name,
        "digest": run.resolved.digest,
        "plugins": run.resolved.plugins,
        "processes": distributed.world(),
        "device": run.device.type,
        "precision": run.spec.train.precision,
        "steps": run.step,
        "epochs": run.epoch,
        "seconds": round(run.progress.seconds, 1),
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "stopped": run.stopping.stop,
        "skipped_steps": run.progress.skipped_steps,
        "warnings": [*run.warnings, *metrics.watch.signs, *_skipped_steps(run)],
        **(evaluation.at_the_end() if evaluate else {}),
    }
    skipped = _all_skipped(run)  # those that evaluation met, too
    return {**results, "skipped_images": sorted(skipped), "skipped_image_count": skipped.total}


def show_summary(run: Run, display: Display, results: Mapping[str, Any]) -> None:
    if run.main:
        for text in _summary(run, results):
            display.say(text)


def _summary(run: Run, results: Mapping[str, Any]) -> Iterator[str | Table]:
    for path in results["skipped_images"]:
        yield f"skipped: {path}"
    if (skipped := results["skipped_image_count"]) > len(results["skipped_images"]):
        yield f"skipped: {skipped - len(results['skipped_images']):,} more"
    if skipped:
        yield f"{count(skipped, 'item')} left out: unreadable."
    if results["skipped_steps"]:
        yield f"{count(results['skipped_steps'], 'step')} left out, because their loss was no number."
    if results["stopped"] is not None:
        yield (
            f"Stopped at step {results['steps']} of {run.total}, as {results['stopped']['by']} asked: "
            f"{results['stopped']['reason']}"
        )
    if results["first_loss"] is not None:
        yield (
            f"{results['name']}: {count(results['epochs'], 'epoch')}, {count(results['steps'], 'step')}, "
            f"{results['seconds']:.0f} s; "
            f"loss {results['first_loss']:.3f} → {results['last_loss']:.3f}"
        )
    shown = [evaluator for evaluator in run.evaluators if evaluator.name in results]
    compared = {evaluator: results[evaluator.name] for evaluator in shown if evaluator.has_baselines}
    if compared:
        yield _table(compared)
    for evaluator in shown:
        if not evaluator.has_baselines:
            yield evaluator.sentence(results[evaluator.name])
    yield f"Saved in {run.folder}. To load it in Python, to evaluate it, to see what is wrong with it:"
    yield _next_steps(run)


def _next_steps(run: Run) -> str:
    allow = ["--allow-code"] if run.resolved.code else []
    more = ", allow_code=True" if allow else ""
    test = run.source.test()
    data = [] if test is not None and max(test.labels or (-1,)) >= 0 else ["--data", "LABELLED_FOLDER"]
    lines = [
        f"\n  backbone = contralex.load_backbone({str(run.folder)!r}{more})",
        remedy("contralex", "eval", "knn", run.folder, *data, *allow),
        remedy("contralex", "doctor", run.folder),
    ]
    return "".join(lines).lstrip("\n")


def _table(found: Mapping[Evaluator, Mapping[str, Any]]) -> Table:
    """``found``: for each evaluator the results by what was evaluated."""
    table = Table(title="\n".join(_title(evaluator, results) for evaluator, results in found.items()))
    table.title_justify = "left"
    table.add_column("")
    for evaluator in found:
        for heading in evaluator.columns.values():
            table.add_column(f"{evaluator.label} {heading}" if len(found) > 1 else heading, justify="right")
    for name in dict.fromkeys(name for results in found.values() for name in results):
        cells = [
            f"{100 * results[name][figure]:.1f}" if name in results else "-"
            for evaluator, results in found.items()
            for figure in evaluator.columns
        ]
        table.add_row(name, *cells)
    return table


def _title(evaluator: Evaluator, results: Mapping[str, Any]) -> str:
    protocol = results[THIS]["protocol"]
    title = f"{evaluator.settings(protocol)};\n{evaluator.samples(protocol)}"
    for name, other in ((name, result["protocol"]) for name, result in results.items()):
        if "train_of" in other or "test_of" in other:
            title += f"\n{name}: {evaluator.samples(other)}"
        if name == PIXELS and other.get("features", "pixels") != "pixels":
            title += f"\n{name}: {other['features']}"
    return title


def _all_skipped(run: Run) -> Skipped:
    everyone = Skipped()
    everyone.merge(distributed.gather_objects([run.split.skipped]))
    return everyone


def _skipped_steps(run: Run) -> list[str]:
    skipped = run.progress.skipped_steps
    return [f"{skipped} of {run.step} steps were left out, because their loss was no number"] if skipped else []
