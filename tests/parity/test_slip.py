"""SLIP equals an independent implementation, in loss, gradients, parameters and BatchNorm's statistics, over steps,
in float64.

The oracle follows losses.py and models.py of the official code, by loops over pairs, on the same weights.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from contralex.errors import ContralexError
from contralex.lookup.step import LookUp
from contralex.recipes.layers import resolve
from contralex.training import build
from tests.parity.test_clip import CLIP_TEXT, clip_oracle, pairs, text_oracle
from tests.parity.test_methods import POPULATION, SAMPLE, B, equal, gradients, normal, step

TAU, RATE = 0.1, 0.01
SETS = (
    "train.precision=fp32",
    f"train.batch_size={B}",
    "method.encoder.backbone={kind: conv, widths: [8, 12], strides: [2, 2]}",
    "method.encoder.projector=[{width: 10, bias: false}]",
    "method.encoder.selfsup=[{width: 16, norm: batch, activation: relu}, {width: 16, norm: batch, activation: relu}, "
    "{width: 6}]",
    "method.encoder.text.width=12",
    "method.encoder.text.dim=10",
)


def slip(*sets: str) -> LookUp:
    model = build.look_up(resolve("slip", preset="digits", sets=[*SETS, *sets]).run, POPULATION).double().train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "stem" in name:  # they start so small that the norms would magnify rounding
                parameter.mul_(30)
    return model


def shown(number: int) -> dict[int, Tensor]:
    generator = torch.Generator().manual_seed(number)
    crops = {view: torch.rand(B, 3, 32, 32, generator=generator, dtype=torch.float64) for view in (0, 2, 3)}
    return {**crops, 1: pairs()[1].roll(number, dims=0)}


class Official:
    """CLIP's loss of (image, text), plus ``scale`` of SimCLR's of the two crops, whose head sees each in a batch of its
    own. Its BatchNorm is written out, and keeps running statistics."""

    def __init__(self, model: Any, scale: float = 1.0) -> None:
        self.model, self.scale = model, scale
        self.running = {
            index: [torch.zeros_like(layer.bias).detach(), torch.ones_like(layer.bias).detach()]
            for index, layer in enumerate(model.encoder.selfsup)
            if isinstance(layer, torch.nn.BatchNorm1d)
        }

    def head(self, features: Tensor) -> Tensor:
        x = features
        for index, layer in enumerate(self.model.encoder.selfsup):
            if index not in self.running:
                x = torch.clamp(x, min=0) if isinstance(layer, torch.nn.ReLU) else x @ layer.weight.T + layer.bias
                continue
            mean, var = x.mean(dim=0), (x - x.mean(dim=0)).square().mean(dim=0)
            unbiased = var.detach() * B / (B - 1)
            for kept, seen in zip(self.running[index], (mean.detach(), unbiased), strict=True):
                kept.copy_(0.9 * kept + 0.1 * seen)
            x = (x - mean) / (var + 1e-5).sqrt() * layer.weight + layer.bias
        return normal(x)

    def loss(self, views: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        image, words = self.model.encoder.towers
        x = normal(image.backbone(views[0]) @ image.projector[0].weight.T)
        y = normal(text_oracle(words, words.stem, views[1], **CLIP_TEXT))
        clip = clip_oracle(x, y, self.model.loss.log_scale)
        a, b = (self.head(image.backbone(views[view])) for view in (2, 3))
        return clip, (self.half(a, b) + self.half(b, a)) / 2

    def half(self, q: Tensor, other: Tensor) -> Tensor:
        """Of ``q``: the other crops of all, and the same crops of other samples; −1e9 stands for those of its own."""
        total = torch.zeros(())
        for i in range(B):
            scores = [q[i] @ other[j] / TAU for j in range(B)]
            scores += [q[i] @ q[j] / TAU - (1e9 if i == j else 0) for j in range(B)]
            total = total - torch.log_softmax(torch.stack(scores), dim=0)[i]
        return total / B


@torch.no_grad()
def descend(model: LookUp, official: bool) -> None:
    for p in model.parameters():
        if p.grad is not None:
            p -= RATE * p.grad
    if official:
        model.loss.log_scale.clamp_(0, 4.6052)


def test_four_steps_equal_the_official_code() -> None:
    ours, theirs = slip(), slip()
    official = Official(theirs)
    for number in range(4):
        views, moment = shown(number), step(number)
        found, (clip, selfsup) = ours(views, SAMPLE, moment), official.loss(views)
        equal(found.answers["main"].loss, clip, "CLIP's loss")
        equal(found.answers["selfsup"].loss, selfsup, "SimCLR's loss")
        equal(found.loss, clip + selfsup, "the loss")
        mine, wanted = gradients(ours, found.loss), gradients(theirs, clip + selfsup)
        assert mine.keys() == wanted.keys() == dict(ours.named_parameters()).keys()
        for name, gradient in wanted.items():
            assert gradient.abs().max() > 1e-6 or "bias" in name, name  # one before BatchNorm has none
            equal(mine[name], gradient, f"the gradient of {name}")
        descend(ours, official=False)
        descend(theirs, official=True)
        ours.update(found.keys, moment)
        for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            equal(one, other, name)
        head: Any = ours.encoder.selfsup
        for index, (mean, var) in official.running.items():
            equal(head[index].running_mean, mean, "the running mean")
            equal(head[index].running_var, var, "the running variance")
            assert head[index].num_batches_tracked == 2 * (number + 1)  # the image beside its caption is not among them


def test_the_scale_of_simclrs_loss_is_the_weight() -> None:
    model, views = slip("method.look_ups.selfsup.weight=0.25"), shown(0)
    clip, selfsup = Official(model).loss(views)
    equal(model(views, SAMPLE, step()).loss, clip + 0.25 * selfsup, "the loss")


def test_the_papers_settings() -> None:
    spec: Any = resolve("slip").run
    method = spec.method
    assert method.loss.temperature == pytest.approx(math.exp(-math.log(1 / 0.07))) and method.loss.max_scale == 100
    assert method.look_ups["selfsup"].loss.temperature == TAU and method.look_ups["selfsup"].weight == 1
    assert [layer.width for layer in method.encoder.selfsup] == [4096, 4096, 256]
    assert method.encoder.projector[0].init_std == pytest.approx(768**-0.5, rel=1e-3)
    assert (spec.train.batch_size, spec.train.epochs, spec.train.optimizer.weight_decay) == (4096, 25, 0.1)


def test_an_image_beside_its_caption_has_no_second_head() -> None:
    model = slip("method.look_ups.selfsup.matches=[0->2, 2->0]")
    with pytest.raises(ContralexError, match=r"the output selfsup of view 0, and only the crops after the caption"):
        model(shown(0), SAMPLE, step())
