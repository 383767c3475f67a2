"""How long the parts of a step take, measured over a few steps of a run that is thrown away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from contralex.training.batches import batches
from contralex.training.run_state import Run
from contralex.training.train_step import take_step

_WARM_UP, _STEPS = 3, 8
_SECONDS = 10.0  # after which no further step is taken
PARTS = ("data", "forward", "backward", "optimiser", "other")


def time_parts(run: Run) -> dict[str, float]:
    """Seconds of an average step, by part: waiting for ``data``, ``forward``, ``backward``, ``optimiser``, and
    ``other`` (copies, the key encoder's and the dictionary's update). Empty where no step could be timed. It trains
    the run."""
    clock = _Clock(run.device)
    counted = 0
    run.prepared.wrapped_method.train()
    deadline = time.perf_counter() + _SECONDS
    with _watch(run, clock):
        train = run.spec.train
        stream = batches(run.split, run.views, train, run.device, epochs=run.epoch + 100, start_step=run.step)
        before = clock.now()
        for number, batch in enumerate(islice(stream, _WARM_UP + _STEPS)):
            arrived = clock.now()
            inside = dict(clock.seconds)
            take_step(run, batch, run.clock())
            run.progress.step = min(run.step + 1, run.total - 1)
            done = clock.now()
            if number < _WARM_UP:
                clock.seconds = dict.fromkeys(PARTS, 0.0)
            else:
                counted += 1
                clock.seconds["data"] += arrived - before
                named = sum(clock.seconds[part] - inside[part] for part in ("forward", "backward", "optimiser"))
                clock.seconds["other"] += max(done - arrived - named, 0.0)
            if done > deadline:
                break
            before = clock.now()
    return {part: seconds / counted for part, seconds in clock.seconds.items()} if counted else {}


class _Clock:
    """Sums of seconds by part. A GPU is waited for at each reading."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._began = 0.0

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def start(self, *_: Any) -> None:
        self._began = self.now()

    def stop(self, part: str) -> None:
        self.seconds[part] += self.now() - self._began


@contextmanager
def _watch(run: Run, clock: _Clock) -> Iterator[None]:
    """Within, the parts of each step are timed."""
    backward = run.prepared.backward

    def timed(loss: Tensor) -> None:
        clock.start()
        backward(loss)
        clock.stop("backward")

    method, optimizer = run.prepared.wrapped_method, run.prepared.optimizer
    hooks = [
        method.register_forward_pre_hook(clock.start),
        method.register_forward_hook(lambda *_: clock.stop("forward")),
        optimizer.register_step_pre_hook(clock.start),
        optimizer.register_step_post_hook(lambda *_: clock.stop("optimiser")),
    ]
    run.prepared = replace(run.prepared, backward=timed)
    try:
        yield
    finally:
        run.prepared = replace(run.prepared, backward=backward)
        for hook in hooks:
            hook.remove()
