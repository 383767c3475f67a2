"""SimSiam against its Algorithm 1, in its gradients and in the rates of its optimiser."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup.clock import Clock
from contralex.recipes.layers import resolve
from contralex.training import build, optimizers
from tests.parity.test_methods import B, embed, images, made, normal, same


def test_simsiam() -> None:
    model, views = made("simsiam"), images(2)

    def algorithm() -> Tensor:
        z = [embed(model.encoder, views[view]) for view in (0, 1)]
        p = [model.encoder.predictor(each) for each in z]
        total = torch.zeros(())
        for mine, other in ((0, 1), (1, 0)):
            for i in range(B):
                total = total - normal(p[mine])[i] @ normal(z[other]).detach()[i] / B / 2
        return total + 1  # ours ends at 0, the paper's at -1; the gradient is the same

    same(model, views, algorithm)


def test_weight_two_is_byols_loss() -> None:
    model, views = made("simsiam", "method.loss.weight=2", "method.reduction=sum"), images(2)

    def squared_distances() -> Tensor:
        z = [embed(model.encoder, views[view]) for view in (0, 1)]
        pairs = [(model.encoder.predictor(z[0]), z[1]), (model.encoder.predictor(z[1]), z[0])]
        return sum(
            (F.normalize(p, dim=1) - F.normalize(k, dim=1).detach()).pow(2).sum(dim=1).mean() for p, k in pairs
        ) + torch.zeros(())

    same(model, views, squared_distances)


def test_the_predictors_rate_stands_still() -> None:
    spec = resolve("simsiam").run
    model = build.look_up(resolve("simsiam", preset="digits").run, 40)
    optimizer = optimizers.build(spec.train.optimizer, model)
    clock = Clock(step=505, total=1000, per_epoch=10)  # the code's rate is that of the epoch's start
    rate = optimizers.set_rates(optimizer, spec.train.optimizer, clock, spec.train.batch_size)
    assert math.isclose(rate, 0.05 * 512 / 256 * 0.5 * (1 + math.cos(math.pi * 50 / 100)))
    predictor, rest = optimizer.param_groups
    assert {id(p) for p in predictor["params"]} == {id(p) for p in model.encoder.predictor.parameters()}
    assert (predictor["lr"], rest["lr"]) == (0.1, rate)
    assert (predictor["weight_decay"], rest["weight_decay"]) == (1e-4, 1e-4)


def test_its_network_is_the_papers() -> None:
    encoder = resolve("simsiam").run.method.encoder
    layers = [*encoder.projector, *encoder.predictor]  # type: ignore[attr-defined]
    assert [layer.width for layer in layers] == [2048, 2048, 2048, 512, 2048]
    assert [layer.bias for layer in layers] == [False, False, False, False, True]
    assert [layer.norm for layer in layers] == ["batch", "batch", "batch", "batch", "none"]
    assert [layer.activation for layer in layers] == ["relu", "relu", "none", "relu", "none"]
    assert layers[2].affine == "none" and encoder.backbone.zero_init_residual  # type: ignore[attr-defined]
