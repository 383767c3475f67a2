"""CRD with its cross-entropy and the teacher's logits, from the encoders to the loss, against loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from contralex.lookup.step import LookUp
from contralex.recipes.layers import resolve
from contralex.training import build
from contralex.training.checkpoints import write
from contralex.training.checkpoints.state import CheckpointState
from tests.parity.test_methods import LABELS, POPULATION, SAMPLE, B, equal, images, made, normal, same, step

K, TEMPERATURE, CLASSES = 16, 0.3, 10
ALPHA, BETA, GAMMA, SOFT = 0.6, 0.8, 1.1, 4.0


def teacher(folder: Path) -> str:
    small = ["method.encoder.backbone={kind: conv, widths: [5, 7], strides: [2, 2]}", "train.seed=5"]
    found = resolve("crd-teacher", preset="digits", sets=small)
    model = build.look_up(found.run, POPULATION, LABELS)
    model.train()({0: images(1)[0].float()}, SAMPLE, step())  # BatchNorm has seen something
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    write.save(folder, CheckpointState.make(found, 1), model.state_dict(), optimizer)
    return str(folder / "step-1")


def drawn(relax: bool) -> list[list[int]]:
    """For each query its positive and K samples of other classes, from the step's shares of 1."""
    shares = torch.rand(B, 1 + K, generator=step().generator("contralex-crd"), dtype=torch.float64).tolist()
    rows = []
    for sample, (first, *rest) in zip(SAMPLE.tolist(), shares, strict=True):
        by_class = sorted(range(POPULATION), key=lambda index: (LABELS[index], index))
        mine = [index for index in by_class if LABELS[index] == LABELS[sample]]
        others = [index for index in by_class if LABELS[index] != LABELS[sample]]
        positive = mine[int(first * len(mine))] if relax else sample
        rows.append([positive, *(others[int(share * len(others))] for share in rest)])
    return rows


def loops(model: Any, image: Tensor, alpha: float, relax: bool) -> Tensor:
    encoder, places = model.encoder, drawn(relax)
    seen, known = encoder.backbone(image), encoder.teacher.backbone.eval()(image).detach()
    logits = encoder.classifier(seen)
    sides = [normal(encoder.student_embedding(seen)), normal(encoder.teacher_embedding(known))]
    total, noise = torch.zeros(()), K / POPULATION
    for query, key in ((0, 1), (1, 0)):  # the student in the teacher's bank, the teacher in the student's
        bank = model.negatives.bank.bank(key)
        raw = [[torch.exp(sides[query][i] @ bank[j] / TEMPERATURE) for j in places[i]] for i in range(B)]
        z = torch.stack([s for row in raw for s in row]).mean().detach() * POPULATION
        for row in raw:
            p = row[0] / z
            total = total - BETA * torch.log(p / (p + noise + 1e-7)) / B
            for s in row[1:]:
                total = total - BETA * torch.log(noise / (s / z + noise + 1e-7)) / B
    for i, sample in enumerate(SAMPLE.tolist()):
        total = total - GAMMA * torch.log_softmax(logits[i], 0)[LABELS[sample]] / B
        if alpha:
            p = torch.softmax(encoder.teacher.head(known)[i].detach() / SOFT, 0)
            q = torch.softmax(logits[i] / SOFT, 0)
            total = total + alpha * SOFT**2 * (p * (p.log() - q.log())).sum() / B
            total = total - alpha * SOFT**2 * (p * p.log()).sum() / B  # the teacher's entropy, which moves nothing
    return total


@pytest.mark.parametrize("alpha", [0.0, ALPHA])
@pytest.mark.parametrize("positive", ["exact", "relax"])
def test_crd(alpha: float, positive: str, tmp_path: Path) -> None:
    model = crd(teacher(tmp_path), alpha, positive)
    image = images(1)[0]
    same(model, {0: image, 1: image}, lambda: loops(model, image, alpha, positive == "relax"))
    z = model.loss.z
    assert z.shape == (2,) and bool((z > 0).all()) and z[0] != z[1]


def test_each_memory_holds_its_own_side(tmp_path: Path) -> None:
    model: Any = crd(teacher(tmp_path), 0, "exact")
    image, moment = images(1)[0], step()
    before = [model.negatives.bank.bank(view).clone() for view in (0, 1)]
    found = model({0: image, 1: image}, SAMPLE, moment)
    encoder = model.encoder
    known = encoder.teacher_embedding(encoder.teacher.backbone(image))
    sides = [normal(encoder.student_embedding(encoder.backbone(image))).detach(), normal(known).detach()]
    model.update(found.keys, moment)
    for view in (0, 1):
        mixed = 0.5 * before[view][SAMPLE] + 0.5 * sides[view]
        equal(model.negatives.bank.bank(view)[SAMPLE], normal(mixed), "what is remembered")


def crd(path: str, alpha: float, positive: str) -> LookUp:
    targets = f"targets: {{kind: teacher_logits, temperature: {SOFT}}}"
    loss = f"loss: {{kind: soft_cross_entropy, temperature: {SOFT}}}"
    teacher = f"of: logits, negatives: {{kind: borrowed, look_up: labels}}, {targets}, {loss}, matches: [0->1]"
    return made(
        "crd",
        f"method.encoder.teacher={path}",
        f"method.negatives={{kind: other_classes, draws: {K}, positive: {positive}}}",
        f"method.loss.temperature={TEMPERATURE}",
        f"method.weight={BETA}",
        f"method.look_ups.labels.weight={GAMMA}",
        *([f"method.look_ups.teacher={{{teacher}, weight: {alpha * SOFT**2}}}"] if alpha else []),
    )
