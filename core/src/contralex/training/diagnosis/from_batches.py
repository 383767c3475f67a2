"""Signs in what was measured of a few batches."""

from __future__ import annotations

import os
from collections.abc import Iterator

from contralex.recipes.run_spec import RunSpec
from contralex.training.diagnosis import settings
from contralex.training.diagnosis.measure import Measured
from contralex.training.diagnosis.signs import Sign

_COLOUR = 0.5
_EASY = 0.9
_TIMES_CHANCE = 3
_ALIKE = 0.05
_LOW_RANK = 2.0
_MOVED, _EQUAL = 1e-3, 1e-6  # relative to the length of the weights
_WAITING = {"cpu": 0.5, "cuda": 0.2, "mps": 0.2}


def batch_signs(found: Measured, run: RunSpec, late: tuple[float, float] | None) -> Iterator[Sign]:
    """``late``: the look-up accuracy of the last logged periods, and chance."""
    yield from _collapse(found, run)
    yield from _key_encoder(found, run)
    yield from _colour(found, run)
    yield from _weak(found, run)
    yield from _strong(found, run, late)
    yield from _loader(found, run)


def _collapse(found: Measured, run: RunSpec) -> Iterator[Sign]:
    slower = (settings.scaled_rate(run, 0.3),)
    if found.feature_std is not None and found.feature_std < _ALIKE:
        yield Sign(
            "collapse",
            f"The backbone's features of {found.samples} samples are nearly all alike (feature_std "
            f"{found.feature_std:.3g}): whatever is shown to it, it says the same.",
            f"at least {_ALIKE:g}, and 1 for features that point everywhere",
            "SimSiam, arXiv:2011.10566, section 4.1",
            {"feature_std": found.feature_std},
            slower,
        )
    elif found.effective_rank is not None and found.effective_rank < _LOW_RANK and found.features > _LOW_RANK:
        yield Sign(
            "low_rank",
            f"The backbone's features of {found.samples} samples vary along {found.effective_rank:.2f} "
            f"of {found.features} directions.",
            f"an effective rank of at least {_LOW_RANK:g}",
            "dimensional collapse, arXiv:2110.09348; RankMe, arXiv:2210.02885, Eq. 4",
            {"effective_rank": found.effective_rank, "features": found.features},
            slower,
        )


def _key_encoder(found: Measured, run: RunSpec) -> Iterator[Sign]:
    follows = run.method.key_encoder.follows()
    if found.query_moved is None or found.key_moved is None or found.key_apart is None or found.query_moved < _MOVED:
        return
    measured = {"query_moved": found.query_moved, "key_moved": found.key_moved, "key_apart": found.key_apart}
    tries = (f"method.key_encoder.{follows[0]}=0.99",) if follows is not None else ()
    if found.key_moved <= _EQUAL * found.query_moved:
        yield Sign(
            "dead_key_encoder",
            f"The key encoder still has its first weights, while the query encoder has moved by "
            f"{found.query_moved:.2g} of its own length: the keys are those of an untrained network.",
            "a key encoder that follows the query encoder moves when that does",
            "MoCo, arXiv:1911.05722, Eq. 2, with m = 1",
            measured,
            tries,
        )
    elif found.key_apart <= _EQUAL * found.query_moved:
        yield Sign(
            "key_encoder_does_not_lag",
            "The key encoder has the weights of the query encoder, and should lag behind them.",
            "a distance above 0",
            "MoCo, arXiv:1911.05722, Eq. 2, with m = 0, which fails in its section 4.1",
            measured,
            tries,
        )


def _colour(found: Measured, run: RunSpec) -> Iterator[Sign]:
    if found.mean_colour is None or found.histogram is None or max(found.mean_colour, found.histogram) <= _COLOUR:
        return
    augment = settings.augmentation(run)
    jitter = "{brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, p: 0.8}"
    what = "mean colour" if found.mean_colour > _COLOUR else "histogram of colours"
    yield Sign(
        "colour_tells",
        f"Without any encoder, the {what} finds the other view of {max(found.mean_colour, found.histogram):.0%} of "
        f"{found.samples} samples (chance is {found.chance:.1%}): an encoder need not learn more than colours.",
        f"at most {_COLOUR:.0%} among {_group(found)}",
        "SimCLR, arXiv:2002.05709, section 3.1 and Figure 6",
        {"mean_colour": found.mean_colour, "histogram": found.histogram, "chance": found.chance or 0.0},
        (f"{augment}.jitter={jitter}", f"{augment}.gray={{p: 0.2}}") if augment else (),
    )


def _weak(found: Measured, run: RunSpec) -> Iterator[Sign]:
    if found.pixels is None or found.untrained is None or max(found.pixels, found.untrained) < _EASY:
        return
    augment = settings.augmentation(run)
    yield Sign(
        "views_too_weak",
        f"The other view of a sample is found by its pixels in {found.pixels:.0%} of the cases, and by the encoder's "
        f"first weights in {found.untrained:.0%} (chance is {found.chance:.1%}): nothing has to be learnt for that.",
        f"below {_EASY:.0%} among {_group(found)}",
        "the harder the task, the better the features: SimCLR, arXiv:2002.05709, section 3.1",
        {"pixels": found.pixels, "untrained": found.untrained},
        (f"{augment}.crop.scale=[0.2, 1]",) if augment else (),
    )


def _strong(found: Measured, run: RunSpec, late: tuple[float, float] | None) -> Iterator[Sign]:
    if late is None or found.pixels is None or found.untrained is None or found.chance is None:
        return
    accuracy, chance = late
    most = _TIMES_CHANCE * found.chance
    if accuracy > 2 * chance or max(found.pixels, found.untrained) > most:
        return
    augment = settings.augmentation(run)
    yield Sign(
        "views_too_strong",
        f"The look-up is at chance in the last logged periods ({accuracy:.2%}; chance is {chance:.2%}), and neither "
        f"pixels ({found.pixels:.1%}) nor the encoder's first weights ({found.untrained:.1%}) find a sample's other "
        "view: the views may have nothing in common.",
        f"a look-up accuracy above twice chance, or another look-up above {_TIMES_CHANCE} times {found.chance:.1%}",
        "what the views do not share cannot be learnt: InfoMin, arXiv:2005.10243, section 3",
        {"lookup_top1": accuracy, "pixels": found.pixels, "untrained": found.untrained},
        (f"{augment}.crop.scale=[0.2, 1]", f"{augment}.crop.ratio=[0.75, 1.333]") if augment else (),
    )


def _loader(found: Measured, run: RunSpec) -> Iterator[Sign]:
    waiting, bound = found.waiting, _WAITING.get(found.device, 0.2)
    if waiting is None or waiting <= bound:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    more = max(found.workers + 1, cores - 1)
    tries = (f"train.workers={more}",) if more <= 2 * cores else ()
    parts = ", ".join(f"{part} {1000 * seconds:.3g} ms" for part, seconds in found.seconds.items())
    yield Sign(
        "loader_too_slow",
        f"{waiting:.0%} of a step is spent waiting for data ({parts}), with {found.workers} processes that load them.",
        f"at most {bound:.0%} on this device",
        "reason: a device that waits trains nothing; a step was timed here and now",
        {"waiting": waiting, **found.seconds},
        tries,
    )


def _group(found: Measured) -> str:
    return f"{round(1 / found.chance)} samples" if found.chance else "the samples of a batch"
