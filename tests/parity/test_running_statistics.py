"""BatchNorm's running statistics after several steps equal those of the official order: view 0, then view 1,
through the online network and then through the other (BYOL: byol_experiment.py; MoCo v3: builder.py)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from contralex.lookup.step import LookUp
from tests.parity.test_methods import SAMPLE, B, embed, made, normal, step

STEPS, RATE, MOMENTUM = 4, 0.05, 0.9
HEAD = "[{width: 16, norm: batch, activation: relu}, {width: 10}]"
SETS = (
    f"method.encoder.projector={HEAD}",
    f"method.encoder.predictor={HEAD}",
    "method.key_encoder.init=copy",
    f"method.key_encoder.momentum={MOMENTUM}",
)


def batches() -> list[list[Tensor]]:
    """Two views of each step, of other brightness: the views' statistics differ, and so does their order."""
    generator = torch.Generator().manual_seed(5)
    return [
        [torch.rand(B, 3, 16, 16, generator=generator, dtype=torch.float64) * (1 + 2 * view) for view in (0, 1)]
        for _ in range(STEPS)
    ]


def statistics(module: Any) -> dict[str, Tensor]:
    return {name: buffer for name, buffer in module.named_buffers() if "running" in name}


def move(parameters: list[Tensor], gradients: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= RATE * gradient


def byol(p: list[Tensor], z: list[Tensor]) -> Tensor:
    return sum(((p[view] - z[1 - view]) ** 2).sum() / B for view in (0, 1))  # type: ignore[return-value]


def moco_v3(q: list[Tensor], k: list[Tensor], temperature: float = 0.5) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for view in (0, 1):
        scores = q[view] @ k[1 - view].T / temperature
        total = total + 2 * temperature * (torch.logsumexp(scores, dim=1) - scores.diag()).mean()
    return total


def official(model: LookUp, loss: Any, order: tuple[int, int]) -> tuple[Any, Any]:
    """The two networks after all steps, each view encoded by itself in this order."""
    online, target = copy.deepcopy(model.encoder), copy.deepcopy(model.key_encoder.encoder)
    for views in batches():
        asked: dict[int, Tensor] = {}
        for view in order:
            asked[view] = normal(online.predictor(embed(online, views[view])))
        with torch.no_grad():
            keys = {view: normal(embed(target, views[view])) for view in order}
        parameters = list(online.parameters())
        move(parameters, torch.autograd.grad(loss([asked[0], asked[1]], [keys[0], keys[1]]), parameters))
        with torch.no_grad():
            for mine, theirs in zip(target.parameters(), online.parameters(), strict=True):
                mine.copy_(MOMENTUM * mine + (1 - MOMENTUM) * theirs)
    return online, target


@pytest.mark.parametrize(
    ("recipe", "sets", "loss"),
    [("byol", (), byol), ("moco-v3", ("method.loss={temperature: 0.5, weight: 1.0}", "method.reduction=sum"), moco_v3)],
)
def test_running_statistics_follow_the_order_of_the_views(recipe: str, sets: tuple[str, ...], loss: Any) -> None:
    model = made(recipe, *SETS, *sets).double()
    online, target = official(model, loss, (0, 1))
    reverse, _ = official(model, loss, (1, 0))
    for number, views in enumerate(batches()):
        moment = step(number)
        found = model(dict(enumerate(views)), SAMPLE, moment)
        parameters = list(model.encoder.parameters())
        move(parameters, list(torch.autograd.grad(found.loss, parameters)))
        model.update(found.keys, moment)
    for mine, theirs in ((model.encoder, online), (model.key_encoder.encoder, target)):
        wanted = statistics(theirs)
        assert len(wanted) == 8  # means and variances of two layers of the backbone and one of each head
        for name, value in statistics(mine).items():
            torch.testing.assert_close(value, wanted[name], rtol=1e-6, atol=1e-6)
    there = statistics(model.encoder)
    apart = [float((there[name] - value).abs().max()) for name, value in statistics(reverse).items()]
    assert max(apart) > 1e-3  # the other order is another result
