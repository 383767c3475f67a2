"""Learning rates equal those of the official codes, at every step of the whole run, in float64.

Each oracle states the official law as that code counts: its epochs, its steps, its arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from contralex.lookup.clock import Clock, value_at
from contralex.recipes.layers import resolve
from contralex.recipes.schedules import Cosine

T = 7  # steps in an epoch


def ours(recipe: str, per_epoch: int, *sets: str) -> list[float]:
    """Of every step of the run, before the scaling with the batch."""
    train = resolve(recipe, sets=list(sets)).run.train
    total = train.epochs * per_epoch if train.max_steps is None else train.max_steps
    return [value_at(train.optimizer.lr, Clock(step, total, per_epoch)) for step in range(total)]


def half_cosine(high: float, low: float, part: float) -> float:
    return low + (high - low) * (1 + math.cos(math.pi * part)) / 2


def supcon() -> Iterator[float]:
    """SupContrast, util.py and main_supcon.py: epochs are 1 to 1000, and a batch of 1024 warms up in the first 10."""
    low = 0.5 * 0.1**3
    reached = half_cosine(0.5, low, 10 / 1000)
    for epoch in range(1, 1001):
        for batch in range(T):
            if epoch <= 10:
                yield 0.01 + (batch + (epoch - 1) * T) / (10 * T) * (reached - 0.01)
            else:
                yield half_cosine(0.5, low, epoch / 1000)


def infomin() -> Iterator[float]:
    """PyContrast, base_trainer.py and main_contrast.py: epochs are 1 to 200, and a batch of 256 has no warm-up."""
    for epoch in range(1, 201):
        yield from [half_cosine(0.03, 0.03 * 0.1**3, epoch / 200)] * T


def swav() -> Iterator[float]:
    """main_swav.py: numpy's linspace has both of its ends, and the cosine begins at its highest again."""
    yield from np.linspace(0.3, 4.8, 10 * T)
    steps = (800 - 10) * T
    yield from (half_cosine(4.8, 0.0048, step / steps) for step in range(steps))


def dino() -> Iterator[float]:
    """dino's utils.cosine_scheduler, of rates that are four times these: B 1024 for 256."""
    yield from np.linspace(0, 5e-4, 10 * T)
    steps = (300 - 10) * T
    yield from (half_cosine(5e-4, 1e-6 / 4, step / steps) for step in range(steps))


def dino_resnet50() -> Iterator[float]:
    yield from np.linspace(0, 0.03, 10 * T)
    steps = (100 - 10) * T
    yield from (half_cosine(0.03, 1e-6 / 2, step / steps) for step in range(steps))


def instdisc_cifar() -> Iterator[float]:
    """lemniscate, cifar.py: a tenth for every 40 epochs that are over after the 80th, so that 80 to 119 have none."""
    for epoch in range(200):
        yield from [0.03 * 0.1 ** ((epoch - 80) // 40 if epoch >= 80 else 0)] * T


def warmed_from_zero(peak: float, low: float, epochs: int, warm: int) -> Callable[[], Iterator[float]]:
    """MoCo v3, MAE, BYOL, SimCLR, Barlow Twins: step s of W has s/W of the peak, and the cosine begins at step W."""

    def law() -> Iterator[float]:
        yield from (peak * step / (warm * T) for step in range(warm * T))
        rest = (epochs - warm) * T
        yield from (half_cosine(peak, low, step / rest) for step in range(rest))

    return law


@pytest.mark.parametrize(
    ("recipe", "law"),
    [
        ("supcon", supcon),
        ("infomin", infomin),
        ("swav", swav),
        ("deepcluster-v2", swav),
        ("dino", dino),
        ("dino-resnet50", dino_resnet50),
        ("instdisc-cifar", instdisc_cifar),
        ("simclr-v1", warmed_from_zero(0.3, 0, 1000, 10)),
        ("byol", warmed_from_zero(0.2, 0, 1000, 10)),
        ("barlow", warmed_from_zero(0.2, 0.0002, 1000, 10)),
        ("moco-v3", warmed_from_zero(0.3, 0, 300, 10)),
        ("mae", warmed_from_zero(1.5e-4, 0, 1600, 40)),
    ],
)
def test_the_whole_run_has_the_official_rates(recipe: str, law: Callable[[], Iterator[float]]) -> None:
    expected = list(law())
    found = ours(recipe, T)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-15)


def clip(warm: int, total: int) -> Iterator[float]:
    """open_clip's cosine_lr: step s of W has (s+1)/W of the rate, and the cosine counts from 0 after them."""
    for step in range(total):
        yield 5e-4 * (step + 1) / warm if step < warm else half_cosine(5e-4, 0, (step - warm) / (total - warm))


@pytest.mark.parametrize("sets", [(), ("train.max_steps=9000",)])
def test_clip_has_open_clips_rates(sets: tuple[str, ...]) -> None:
    per_epoch = 400_000_000 // 32768
    found = ours("clip", per_epoch, *sets)
    assert found[0] > 0
    # .16384 epochs are 2000 steps less .005, which moves the cosine by as much
    np.testing.assert_allclose(found, list(clip(2000, len(found))), rtol=2e-6, atol=1e-12)


def test_clip_has_the_rates_of_open_clips_own_code() -> None:
    scheduler = pytest.importorskip("open_clip_train.scheduler")

    class Optimizer:
        param_groups = [{"lr": 0.0}]

    per_epoch, warm = 50, 100
    found = ours("clip", per_epoch, "train.optimizer.lr.warmup_epochs=2")
    rate = scheduler.cosine_lr(Optimizer(), 5e-4, warm, len(found))
    np.testing.assert_allclose(found, [rate(step) for step in range(len(found))], rtol=1e-10, atol=1e-15)


def test_a_warm_up_of_one_step_and_of_a_part_of_one() -> None:
    """linspace of one number has its first end; of a part of a step nothing is left to warm up."""
    for epochs, expected in ((1 / T, 0.25), (0.5 / T, 0.25), (0, 1.0)):
        warm = Cosine(start=1, warmup_start=0.25, warmup_counts="both_ends", warmup_epochs=epochs)
        assert warm.value(Clock(0, 10 * T, T)) == pytest.approx(expected)
