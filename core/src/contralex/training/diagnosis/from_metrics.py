"""Signs in the lines of ``metrics.jsonl`` alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from contralex.recipes.run_spec import RunSpec
from contralex.recipes.sample_counts import queues
from contralex.training import health
from contralex.training.diagnosis import settings
from contralex.training.diagnosis.signs import Sign

Line = dict[str, Any]

_EASY, _EASY_LINES = 0.95, 3
_LATE = 10  # logged periods at the end of a run
_ABOUT = {  # of the signs of a run that watches itself: the bound, and its source
    "rising": ("at most 3 times the first loss", "reason: no loss rises so far while something is learnt"),
    "alike": (
        "feature_std of at least 0.05, and 1 for vectors that point everywhere",
        "SimSiam, arXiv:2011.10566, section 4.1",
    ),
    "few": (
        "effective_rank of at least 1.5",
        "arXiv:2110.09348; RankMe, arXiv:2210.02885, Eq. 4",
    ),
    "chance": (
        "a loss below 0.998 ln K, K being the number of entries",
        "reason: ln K is the loss where every entry is as likely",
    ),
    "nothing": ("a loss above 0", "reason: a cross-entropy of 0 has no gradient"),
    "ln 2": (
        "a loss that is not ln 2 for more than four entries",
        "reason: ln 2 is the least loss where the positive stands in the dictionary twice",
    ),
}
_FIGURES = ("loss", "lookup_top1", "entries", "feature_std", "effective_rank")


def metric_signs(lines: Sequence[Line], run: RunSpec | None) -> Iterator[Sign]:
    """``run``: its spec, from which the settings to try are taken."""
    watch = health.Watch()
    for line in lines:
        watch.new_signs(line)
    for seen in watch.seen:
        bound, source = _ABOUT[seen.name]
        measured = {name: seen.line[name] for name in _FIGURES if name in seen.line}
        yield Sign(seen.name, f"{seen.sentence}.", bound, source, measured, _tries(seen.name, run))
    if run is not None:
        yield from easy_from_the_start(lines, run)


def _tries(name: str, run: RunSpec | None) -> tuple[str, ...]:
    if run is None:
        return ()
    slower, colder = settings.scaled_rate(run, 0.3), settings.scaled_temperature(run, 0.5)
    return {
        "rising": (slower, "train.clip=1"),
        "alike": (slower,),
        "few": (slower,),
        "chance": (*colder, settings.scaled_rate(run, 3)),
    }.get(name, ())


def easy_from_the_start(lines: Sequence[Line], run: RunSpec) -> Iterator[Sign]:
    """Views that are too alike: the sample's own entry is found before anything was learnt."""
    if "positive" not in run.method.negatives.offers():
        return  # the look-up does not ask for the sample itself
    first = [line for line in lines if "lookup_top1" in line and line.get("entries", 0) > 16]
    first = [line for line in first if line["step"] > filled_after(run)][:_EASY_LINES]
    early = max((line["epoch"] for line in lines if "epoch" in line), default=0.0) / 4
    if len(first) < _EASY_LINES or first[-1].get("epoch", math.inf) > max(early, 1.0):
        return
    least = min(line["lookup_top1"] for line in first)
    if least >= _EASY:
        augment = settings.augmentation(run)
        yield Sign(
            "views_too_weak",
            f"The look-up found {least:.0%} of the entries in its first logged periods: the views of a sample are so "
            "alike, or something in them tells the sample so plainly, that nothing has to be learnt.",
            f"a look-up accuracy below {_EASY:.0%} in the first {_EASY_LINES} logged periods",
            "the harder the task, the better the features: SimCLR, arXiv:2002.05709, section 3.1",
            {"lookup_top1": least, "step": first[-1]["step"]},
            (f"{augment}.crop.scale=[0.2, 1]",) if augment else (),
        )


def filled_after(run: RunSpec) -> float:
    """Steps until a queue holds keys alone. Before, its entries are random, and no query takes one for its key."""
    return max((size / run.train.batch_size for _, size in queues(run)), default=0)


def late_accuracy(lines: Sequence[Line]) -> tuple[float, float] | None:
    """The look-up accuracy of the last logged periods, and chance; None where there are too few, or no entries."""
    late = [line for line in lines if "lookup_top1" in line][-_LATE:]
    entries = late[-1].get("entries", 0) if late else 0
    if len(late) < _LATE or entries < 8:
        return None
    return sum(line["lookup_top1"] for line in late) / len(late), 1 / entries
