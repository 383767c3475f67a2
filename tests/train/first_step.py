"""The first step of every method, on real views and in small, in one way of computing or another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from contralex.data.loading import ViewDataset, collate
from contralex.lookup import batch_norm
from contralex.lookup.clock import Clock
from contralex.lookup.step import LookUp
from contralex.lookup.values import Step
from contralex.training import build
from tests.distributed.invariance import FIRST, B, small_run

LOSS, GRADIENT = 1e-5, 3e-5  # relative differences that float32 makes of another order of sums


@dataclass(frozen=True)
class FirstStep:
    loss: Tensor
    gradients: dict[str, Tensor]

    def assert_equals(self, other: FirstStep) -> None:
        torch.testing.assert_close(self.loss, other.loss, rtol=LOSS, atol=LOSS)
        assert self.gradients.keys() == other.gradients.keys()
        flat, theirs = (
            torch.cat([each.gradients[name].double().flatten() for name in sorted(self.gradients)])
            for each in (self, other)
        )
        assert float((flat - theirs).norm() / flat.norm().clamp_min(1e-12)) < GRADIENT


def take_first_step(name: str, folder: Path, arrange: Callable[[LookUp], object]) -> FirstStep:
    """That of the case of this name. ``arrange`` has the method before it is trained."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        spec = small_run(name, folder).run
        split, views = spec.data.build().train(), spec.method.views.build()
        method: nn.Module = build.look_up(spec, len(split), split.labels)
        batch_norm.convert(method, spec.train.batch_norm)
        assert isinstance(method, LookUp)
        arrange(method)
        data = ViewDataset(split, views, spec.train.seed, B)
        batch = collate([data[0, index] for index in data.order.of(0)[:B].tolist()])
        moment = Step(Clock(FIRST, 50 * data.order.steps, data.order.steps), spec.train.seed, B)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found = method(batch["views"], batch["index"], moment)
        found.loss.backward()
        gradients = {key: each.grad for key, each in method.named_parameters() if each.grad is not None}
        return FirstStep(found.loss.detach(), gradients)
    finally:
        torch.set_num_threads(threads)
