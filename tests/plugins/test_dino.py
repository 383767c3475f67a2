"""DINO's two parts by themselves, and the collapse that centring prevents."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from contralex.plugin import ContralexError, Dictionary, Match, NoNegatives, Rows, Step
from contralex.recipes.schedules import Linear
from contralex_dino.prototypes import WeightNormedPrototypes
from contralex_dino.targets import CentredSoftmaxTargets
from tests.parity.test_methods import SAMPLE, images, made, step

COUNT, DIM = 16, 6


def prototypes() -> Any:
    torch.manual_seed(0)
    return WeightNormedPrototypes(count=COUNT, dim=DIM)


def rows(view: int) -> Rows:
    generator = torch.Generator().manual_seed(view)
    return Rows.from_view(torch.randn(4, DIM, generator=generator), torch.arange(4), view)


def given(targets: Any, dictionary: Dictionary, moment: Step, key: int = 0) -> Tensor:
    keys = Rows.cat([rows(0), rows(1)])
    return targets(rows(2), keys, dictionary, Match(2, key), moment).weights


def test_prototypes_keep_their_length_while_weights_grow() -> None:
    source = prototypes()
    with torch.no_grad():
        source.layer.parametrizations.weight.original1.mul_(7)
    found = source(rows(2), rows(0), Match(2, 0), step())
    torch.testing.assert_close(found.shared.norm(dim=1), torch.ones(COUNT))
    torch.testing.assert_close(found.shared, found.key_shared)
    (gradient,) = torch.autograd.grad(found.shared[:, 0].sum(), source.layer.parametrizations.weight.original1)
    v = source.layer.parametrizations.weight.original1
    torch.testing.assert_close((gradient * v).sum(dim=1), torch.zeros(COUNT), atol=1e-6, rtol=0)  # along v, nothing


def test_temperature_follows_its_schedule_by_epochs() -> None:
    source = prototypes()
    warm = Linear(start=0.1, end=0.5, epochs=4, per="epoch")
    targets = CentredSoftmaxTargets(source, temperature=warm)
    dictionary = source(rows(2), rows(0), Match(2, 0), step())
    scores = rows(1).vectors @ dictionary.key_shared.T
    for number, temperature in ((0, 0.1), (4, 0.1), (5, 0.2), (99, 0.5)):  # five steps an epoch
        expected = torch.stack([torch.exp(s / temperature) / torch.exp(s / temperature).sum() for s in scores])
        torch.testing.assert_close(given(targets, dictionary, step(number), key=1), expected)


def test_centre_moves_once_a_step_after_it() -> None:
    source = prototypes()
    targets = CentredSoftmaxTargets(source, centre_momentum=0.75)
    moment = step()
    dictionary = source(rows(2), rows(0), Match(2, 0), moment)
    before = given(targets, dictionary, moment)
    given(targets, dictionary, moment, key=1)
    assert not targets.centre.any()
    targets.update(Rows.cat([rows(0), rows(1)]), moment)
    mean = torch.cat([rows(0).vectors, rows(1).vectors]) @ dictionary.key_shared.T
    torch.testing.assert_close(targets.centre, 0.25 * mean.mean(dim=0))
    assert not torch.equal(given(targets, dictionary, step(1)), before)
    targets.update(Rows.cat([rows(0), rows(1)]), step(2))  # nothing was looked up in that step
    torch.testing.assert_close(targets.centre, 0.25 * mean.mean(dim=0))


def test_core_prototypes_have_a_centre_too() -> None:
    sets = ("method.negatives={kind: prototypes, count: 9}", "train.optimizer.groups=[]")
    assert made("dino", *sets).targets.centre.shape == (9,)


def test_a_source_without_prototypes_is_refused() -> None:
    with pytest.raises(
        ContralexError, match="centred_softmax keeps one number for each prototype, and NoNegatives has no prototypes"
    ):
        CentredSoftmaxTargets(NoNegatives())


def teacher_use(centre_momentum: float) -> float:
    """What share of ln K the entropy of the teacher's mean output reaches after some steps: 0 where one prototype is
    every image's, 1 where all are used equally."""
    model = made(
        "dino",
        f"method.negatives.count={COUNT}",
        f"method.targets.centre_momentum={centre_momentum}",
        "method.key_encoder.momentum=0.99",
        "method.encoder.backbone={kind: vit, image_size: 16, patch: 8, width: 16, depth: 1, heads: 2, pool: mean}",
        "method.encoder.projector=[{width: 32, activation: gelu}, {width: 16}]",
        "method.views.groups.locals=null",
    )
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.03, momentum=0.9)
    seen: list[Tensor] = []
    model.targets.register_forward_hook(lambda part, arguments, found: seen.append(found.weights))
    for number in range(40):
        generator = torch.Generator().manual_seed(number)
        plain = images(1)[0]
        views = {view: plain + 0.1 * torch.randn(plain.shape, generator=generator) for view in (0, 1)}
        moment = step(number)
        seen.clear()
        found = model(views, SAMPLE, moment)
        optimizer.zero_grad()
        found.loss.backward()
        optimizer.step()
        model.update(found.keys, moment)
    mean = torch.cat(seen).mean(dim=0).clamp_min(1e-12)
    return float(-(mean * mean.log()).sum()) / math.log(COUNT)


def test_without_centring_one_prototype_takes_all() -> None:
    """Sharpening alone gives every image to the same prototype (section 5.3 of the paper)."""
    pytest.importorskip("timm")
    assert teacher_use(1.0) < 0.05  # the centre stays at zero
    assert teacher_use(0.9) > 0.6
