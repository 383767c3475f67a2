"""CMC of two views and of three, from the encoders to the loss, against loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from contralex.lookup.step import LookUp
from contralex.recipes.layers import resolve, resolve_data
from contralex.training import build
from tests.parity.test_methods import POPULATION, SAMPLE, B, embed, equal, images, normal, same, step

K, TEMPERATURE = 16, 0.3


def cmc(split: tuple[int, ...], **changes: Any) -> tuple[LookUp, dict[int, Tensor]]:
    """The recipe with as many small encoders as views, and the views of a batch."""
    fields = [f"method.negatives.draws={K}", f"method.loss.temperature={TEMPERATURE}", f"train.batch_size={B}"]
    data = resolve("cmc", preset="digits", sets=["train.precision=fp32", *fields]).data
    data["method"].update(**changes)
    data["method"]["views"]["split"] = list(split)
    data["method"]["encoder"] |= {
        "towers": {f"view {place}": tower(channels) for place, channels in enumerate(split)},
        "channels": list(split),
    }
    first = [sum(split[:place]) for place in range(len(split))]
    views = {view: images(1)[0][:, start : start + split[view]] for view, start in enumerate(first)}
    return build.look_up(resolve_data(data).run, POPULATION, None).double().train(), views


def tower(channels: int) -> dict[str, Any]:
    backbone = {"kind": "conv", "widths": [8, 12], "strides": [2, 2], "channels": channels}
    return {"kind": "image", "backbone": backbone, "projector": [{"width": 10}], "normalize": True}


def loops(model: LookUp, views: dict[int, Tensor], pairs: list[tuple[int, int]]) -> Tensor:
    """The sum over ordered pairs of views of NCE, with a normaliser for each view that asks: its first pair sets it."""
    drawn = torch.randint(POPULATION, (B, K), generator=step().generator(2))
    v = {view: normal(embed(model.encoder.towers[view], image)) for view, image in views.items()}
    total, normaliser = torch.zeros(()), {}
    for query, key in pairs:
        bank = model.negatives.bank(key)
        raw = [[torch.exp(v[query][i] @ bank[j] / TEMPERATURE) for j in [SAMPLE[i], *drawn[i]]] for i in range(B)]
        if query not in normaliser:
            normaliser[query] = torch.stack([s for row in raw for s in row]).mean().detach() * POPULATION
        z, noise = normaliser[query], K / POPULATION
        for row in raw:
            p = row[0] / z
            total = total - torch.log(p / (p + noise + 1e-7)) / B
            for s in row[1:]:
                total = total - torch.log(noise / (s / z + noise + 1e-7)) / B
    return total


def test_cmc() -> None:
    model, views = cmc((1, 2))
    assert {(m.query, m.key) for m in model.matches} == {(0, 1), (1, 0)}
    same(model, views, lambda: loops(model, views, [(1, 0), (0, 1)]))
    assert model.loss.z.shape == (2,) and model.loss.z[0] != model.loss.z[1]


def test_three_views_and_all_their_pairs() -> None:
    model, views = cmc((1, 1, 1))
    pairs = [(m.query, m.key) for m in model.matches]
    assert sorted(pairs) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    same(model, views, lambda: loops(model, views, pairs))


def test_a_core_view_and_the_pairs_that_it_is_in() -> None:
    """The paper's core view graph: view 0 with each other one."""
    model, views = cmc((1, 1, 1), matches=["0->1", "1->0", "0->2", "2->0"])
    pairs = [(0, 1), (1, 0), (0, 2), (2, 0)]
    same(model, views, lambda: loops(model, views, pairs))


@pytest.mark.parametrize("view", [0, 1])
def test_each_memory_holds_its_own_view(view: int) -> None:
    model, views = cmc((1, 2))
    before, moment = model.negatives.bank(view).clone(), step()
    found = model(views, SAMPLE, moment)
    v = normal(embed(model.encoder.towers[view], views[view])).detach()
    model.update(found.keys, moment)
    mixed = 0.5 * before[SAMPLE] + 0.5 * v
    equal(model.negatives.bank(view)[SAMPLE], normal(mixed), "what is remembered")
