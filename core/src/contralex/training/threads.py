"""The number of threads in which the CPU computes: stated, or the fastest of the first steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch

from contralex.data.loading import Batch
from contralex.training import devices
from contralex.training.run_state import Run

_ROUNDS = 2  # in which each number is tried, so that no passing disturbance decides
_STEPS = 6  # of a try, of which the first is not timed, because threads start in it
_GAIN = 0.95  # of the safest number's time, above which that number stays
_WORTH = 10  # A run that is fewer times as long as the trial has none.


def with_fastest(batches: Iterable[Batch], run: Run, say: Callable[[str], object]) -> Iterator[Batch]:
    """The batches of a run that is about to train. Their first steps are computed in several numbers of threads in
    turn, and the others in the fastest.

    A run that is resumed keeps the number that it had chosen, so that its results are those of an uninterrupted run.
    """
    stream = iter(batches)
    choices = devices.thread_choices(run.spec.train, run.device.type)
    if run.progress.threads in choices:
        torch.set_num_threads(run.progress.threads)
    elif len(choices) == 1 or run.total - run.step < _WORTH * _ROUNDS * _STEPS * len(choices):
        torch.set_num_threads(choices[0])
    else:
        yield from _trial(stream, run, choices)
        say(f"Threads: {run.progress.threads}, with which the first steps were the fastest.")
    yield from stream


def _trial(stream: Iterator[Batch], run: Run, choices: tuple[int, ...]) -> Iterator[Batch]:
    """The batches of the trial, at whose end the fastest number is set."""
    seconds: dict[int, list[float]] = {choice: [] for choice in choices}
    for _ in range(_ROUNDS):
        for choice in choices:
            torch.set_num_threads(choice)
            began = run.progress.seconds
            for number, batch in enumerate(islice(stream, _STEPS)):
                yield batch  # comes back when the step is done; evaluation and saving are not counted
                if number == 0:
                    began = run.progress.seconds
            seconds[choice].append(run.progress.seconds - began)
    best = {choice: min(times) for choice, times in seconds.items()}
    fastest = min(choices, key=best.__getitem__)
    run.progress.threads = fastest if best[fastest] < _GAIN * best[choices[0]] else choices[0]
    torch.set_num_threads(run.progress.threads)
