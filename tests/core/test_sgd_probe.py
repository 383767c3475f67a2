"""Linear classifiers trained at once: each becomes what torch's own optimiser makes of it alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.errors import ContralexError
from contralex.evaluation.linear_protocols import PROTOCOLS, find_protocol
from contralex.evaluation.sgd_probe import Probes, Schedule, Setting, SweepTrainer, train
from contralex.training.optimizers import LARS
from tests.core.test_knn import clusters

SETTINGS = [Setting(rate, decay) for rate in (0.01, 0.1, 1.0, 3.0) for decay in (0.0, 1e-4, 1e-2)]
EPOCHS, BATCH = 4, 30


def batches(features: Tensor, labels: Tensor) -> Any:
    def of_epoch(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(epoch))
        for start in range(0, len(features), BATCH):
            some = order[start : start + BATCH]
            yield features[some], labels[some]

    return of_epoch


def alone(setting: Setting, features: Tensor, labels: Tensor, schedule: Schedule, **options: Any) -> nn.Linear:
    """torch's SGD, one setting, autograd."""
    torch.manual_seed(0)
    layer = nn.Linear(features.shape[1], 7)
    drawn = torch.randn(7, features.shape[1], generator=torch.Generator().manual_seed(0)) * 0.01
    with torch.no_grad():
        layer.weight.copy_(drawn)
        layer.bias.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), 1.0, momentum=0.9, weight_decay=setting.weight_decay, **options)
    for epoch in range(EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = setting.rate * schedule.factor(epoch, EPOCHS)
        for rows, truth in batches(features, labels)(epoch):
            optimizer.zero_grad()
            F.cross_entropy(layer(rows), truth).backward()
            optimizer.step()
    return layer


@pytest.mark.parametrize("nesterov", [False, True])
def test_every_setting_is_what_torch_makes_of_it_alone(nesterov: bool) -> None:
    features, labels = clusters(150, 0)
    schedule = Schedule("half-cosine")
    trainer = SweepTrainer(SETTINGS, 8, 7, nesterov=nesterov)
    probes = train(trainer, batches(features, labels), EPOCHS, 5, schedule)
    test, truth = clusters(80, 1)
    hits = probes.hits(test, truth)
    for number, setting in enumerate(SETTINGS):
        layer = alone(setting, features, labels, schedule, nesterov=nesterov)
        torch.testing.assert_close(probes.weight[number], layer.weight.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(probes.bias[number], layer.bias.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(probes.logits(test)[:, number], layer(test).detach(), rtol=1e-4, atol=1e-4)
        assert hits[number, 0] == (layer(test).argmax(dim=1) == truth).sum()
        assert hits[number, 0] <= hits[number, 1]


def test_24_settings_at_once_are_24_alone() -> None:
    features, labels = clusters(150, 0)
    settings = [Setting(rate, decay) for rate in (0.01, 0.03, 0.1, 0.3, 1, 3) for decay in (0, 1e-5, 1e-4, 1e-3)]
    together = train(SweepTrainer(settings, 8, 7), batches(features, labels), EPOCHS, 5, Schedule())
    test, truth = clusters(80, 1)
    for number, setting in enumerate(settings):
        one = train(SweepTrainer([setting], 8, 7), batches(features, labels), EPOCHS, 5, Schedule())
        assert torch.equal(one.hits(test, truth)[0], together.hits(test, truth)[number])
        torch.testing.assert_close(one.weight[0], together.weight[number], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("trust_bias", [False, True])
def test_lars_is_that_of_training(trust_bias: bool) -> None:
    features, labels = clusters(150, 0)
    settings = [Setting(2.0, 0.0), Setting(2.0, 1e-2)]
    trainer = SweepTrainer(settings, 8, 7, trust=1e-3, decay_bias=trust_bias, trust_bias=trust_bias)
    probes = train(trainer, batches(features, labels), EPOCHS, 5, Schedule("constant"))
    for number, setting in enumerate(settings):
        weight = (torch.randn(7, 8, generator=torch.Generator().manual_seed(0)) * 0.01).requires_grad_()
        bias = torch.zeros(7).requires_grad_()
        groups = [{"params": [weight], "trust_ratio": True}, {"params": [bias], "trust_ratio": trust_bias}]
        optimizer = LARS(groups, momentum=0.9, trust=1e-3, variant="lars")
        for group, decay in zip(
            optimizer.param_groups, (setting.weight_decay, setting.weight_decay * trust_bias), strict=True
        ):
            group["lr"], group["weight_decay"] = setting.rate, decay
        for epoch in range(EPOCHS):
            for rows, truth in batches(features, labels)(epoch):
                weight.grad, bias.grad = torch.autograd.grad(
                    F.cross_entropy(F.linear(rows, weight, bias), truth), [weight, bias]
                )
                optimizer.step()
        torch.testing.assert_close(probes.weight[number], weight.detach(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(probes.bias[number], bias.detach(), rtol=1e-4, atol=1e-6)


def test_batch_norm_before_the_classifier_is_torchs() -> None:
    features, labels = clusters(150, 0)
    features = 5 * features + 3
    probes = train(SweepTrainer([Setting(0.1, 0.0)], 8, 7, normalize=True), batches(features, labels), 2, 5, Schedule())
    norm, layer = nn.BatchNorm1d(8, affine=False, eps=1e-6), nn.Linear(8, 7)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(7, 8, generator=torch.Generator().manual_seed(0)) * 0.01)
        layer.bias.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    for epoch in range(2):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * Schedule().factor(epoch, 2)
        for rows, truth in batches(features, labels)(epoch):
            optimizer.zero_grad()
            F.cross_entropy(layer(norm(rows)), truth).backward()
            optimizer.step()
    torch.testing.assert_close(
        probes.logits(features)[:, 0], layer(norm.eval()(features)).detach(), rtol=1e-3, atol=1e-4
    )


def test_schedules_are_those_of_the_papers() -> None:
    moco = Schedule("steps", (60, 80))
    assert [moco.factor(epoch, 100) for epoch in (0, 59, 60, 80)] == pytest.approx([1, 1, 0.1, 0.01])
    cosine = Schedule("half-cosine")
    scheduler_values = [0.5 * (1 + math.cos(math.pi * epoch / 10)) for epoch in range(10)]
    assert [cosine.factor(epoch, 10) for epoch in range(10)] == pytest.approx(scheduler_values)
    mae = Schedule("half-cosine", warmup_epochs=10, per="step")
    assert [mae.factor(epoch, 90) for epoch in (0, 5, 10, 90)] == pytest.approx([0, 0.5, 1, 0])


def test_a_label_that_is_none_of_the_classes_is_never_found() -> None:
    probes = Probes(torch.zeros(2, 3, 4), torch.zeros(2, 3))
    assert probes.hits(torch.rand(5, 4), torch.full((5,), -1)).tolist() == [[0, 0], [0, 0]]


def test_protocols_are_found_by_name() -> None:
    assert list(PROTOCOLS) == [protocol.name for protocol in PROTOCOLS.values()]
    assert find_protocol("moco-v2").rate == 30
    with pytest.raises(ContralexError, match="no such linear evaluation; did you mean simclr"):
        find_protocol("simcrl")
