"""Optimisers, schedules, BatchNorm and MLPs against what they must equal."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from contralex.kinds.encoders.image import mlp
from contralex.kinds.encoders.specs import Layer
from contralex.lookup import batch_norm
from contralex.lookup.clock import Clock
from contralex.recipes import run_spec as specs
from contralex.recipes.schedules import Cosine, Linear, Steps, bounds
from contralex.training import optimizers


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))


def steps(spec: specs.Optimizer, model: nn.Module, count: int = 4) -> None:
    optimizer = optimizers.build(spec, model)
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    for number in range(count):
        optimizers.set_rates(optimizer, spec, Clock(number, count, 1), batch=256)
        optimizer.zero_grad()
        model(x).pow(2).sum().backward()
        optimizers.drop_frozen_gradients(optimizer, Clock(number, count, 10))
        optimizer.step()


@pytest.mark.parametrize("variant", ["lars", "tf", "larc"])
def test_lars_equals_a_naive_loop(variant: str) -> None:
    lr, decay, trust, momentum = 0.5, 0.01, 0.02, 0.9
    group = specs.ParamGroup(match="norm_and_bias", weight_decay=0, trust_ratio=False)
    spec = specs.LARS(lr=lr, weight_decay=decay, trust=trust, momentum=momentum, variant=variant, groups=(group,))
    ours, naive = two_layers(), two_layers()
    steps(spec, ours)
    velocity = {name: torch.zeros_like(p) for name, p in naive.named_parameters()}
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    for _ in range(4):
        naive.zero_grad()
        naive(x).pow(2).sum().backward()
        with torch.no_grad():
            for name, p in naive.named_parameters():
                assert p.grad is not None
                g = p.grad
                if p.dim() > 1:
                    if variant == "larc":
                        g = trust * p.norm() / (g.norm() + decay * p.norm() + 1e-8) * (g + decay * p)
                    else:
                        g = g + decay * p
                        g = trust * p.norm() / g.norm() * g
                velocity[name] = momentum * velocity[name] + (lr * g if variant == "tf" else g)
                p -= velocity[name] if variant == "tf" else lr * velocity[name]
    for mine, theirs in zip(ours.parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(("variant", "after"), [("lars", 1.98), ("tf", 1.98), ("larc", 2.0)])
def test_lars_where_the_gradient_is_zero(variant: str, after: float) -> None:
    weight = nn.Parameter(torch.full((3, 1), 2.0))
    optimizer = optimizers.LARS([weight], momentum=0.0, trust=0.02, variant=variant)
    optimizer.param_groups[0].update(lr=0.5, weight_decay=0.1)
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    torch.testing.assert_close(weight, torch.full((3, 1), after))  # 2 − lr·trust·2 of decay alone; apex decays nothing


def test_larc_has_apexs_eps_which_small_gradients_feel() -> None:
    weight = nn.Parameter(torch.full((4, 1), 0.5))  # of norm 1
    optimizer = optimizers.LARS([weight], momentum=0.0, trust=0.01, variant="larc")
    optimizer.param_groups[0].update(lr=1.0)
    weight.grad = torch.full((4, 1), 5e-10)  # of norm 1e-9, a tenth of the eps
    optimizer.step()
    torch.testing.assert_close(0.5 - weight, torch.full((4, 1), 0.01 * 5e-10 / 1.1e-8), rtol=1e-3, atol=0)


def test_parameter_groups() -> None:
    groups = (
        specs.ParamGroup(match="1.*", fixed_lr=True, lr_scale=2.0, frozen_epochs=0.2),
        specs.ParamGroup(match="norm_and_bias", weight_decay=0),
    )
    lr = Cosine(start=0.1)
    spec = specs.SGD(lr=lr, scaling=specs.LRScaling(rule="linear", per=128), weight_decay=1e-3, groups=groups)
    model = two_layers()
    optimizer = optimizers.build(spec, model)
    rate = optimizers.set_rates(optimizer, spec, Clock(5, 10, 1), batch=256)
    assert math.isclose(rate, 0.1)  # half of the cosine, twice for the batch
    fixed, bias, rest = optimizer.param_groups
    assert (fixed["lr"], fixed["weight_decay"]) == (0.4, 1e-3)
    assert (bias["lr"], bias["weight_decay"]) == (rate, 0)
    assert (rest["lr"], rest["weight_decay"]) == (rate, 1e-3)
    before = [p.clone() for p in model[1].parameters()]
    steps(spec, model, count=2)
    assert all(torch.equal(a, b) for a, b in zip(before, model[1].parameters(), strict=True))
    steps(spec, model, count=3)
    assert not torch.equal(before[0], model[1].weight)


def test_each_parameter_is_clipped_by_itself() -> None:
    sizes = (0.5, 3.0, 40.0)
    parameters = [nn.Parameter(torch.zeros(4)) for _ in (*sizes, None)]  # the last has no gradient
    for parameter, size in zip(parameters, sizes, strict=False):
        parameter.grad = torch.full((4,), size / 2)  # of norm size
    optimizers.clip_each(parameters, 3.0)
    norms = [float(parameter.grad.norm()) for parameter in parameters if parameter.grad is not None]
    assert norms == pytest.approx([0.5, 3.0, 3.0], rel=1e-5)


def test_clip_each_needs_a_clip() -> None:
    with pytest.raises(ValueError, match="set clip, or take clip_each out"):
        specs.TrainSpec(epochs=1, batch_size=4, optimizer=specs.SGD(lr=0.1), clip_each=True)


def test_schedules() -> None:
    def at(step: int) -> Clock:
        return Clock(step, total=100, per_epoch=10)

    warm = Cosine(start=1.0, end=0.2, warmup_epochs=2, warmup_start=0.1)
    assert math.isclose(warm.value(at(0)), 0.1)
    assert math.isclose(warm.value(at(10)), 0.55)
    assert math.isclose(warm.value(at(20)), 1.0)
    assert math.isclose(warm.value(at(60)), 0.6)
    assert math.isclose(warm.value(at(100)), 0.2)
    per_epoch = Cosine(start=1.0, per="epoch")
    assert per_epoch.value(at(10)) == per_epoch.value(at(19)) > per_epoch.value(at(20))
    assert [Linear(start=0, end=1, epochs=5).value(at(step)) for step in (0, 25, 50, 90)] == [0, 0.5, 1, 1]
    drops = Steps(start=1.0, factor=0.1, at=(3, 6))
    assert [drops.value(at(step)) for step in (29, 30, 60)] == pytest.approx([1.0, 0.1, 0.01])


def test_steps_with_a_factor_each() -> None:
    uneven = Steps(start=2.0, factor=(0.1, 0.5, 4.0), at=(3, 6, 8), warmup_epochs=1)
    found = [uneven.value(Clock(step, total=100, per_epoch=10)) for step in (5, 10, 29, 30, 59, 60, 80, 99)]
    assert found == pytest.approx([1.0, 2.0, 2.0, 0.2, 0.2, 0.1, 0.4, 0.4])
    assert bounds(uneven) == pytest.approx((0.1, 2.0))  # not at the end of the run, but in its midst
    assert bounds(Steps(start=2.0, factor=(4.0, 0.1), at=(6, 3))) == pytest.approx((0.2, 2.0))  # .2, then .8
    with pytest.raises(ValueError, match="factor lists 2 and at 1; list one factor for each epoch of at"):
        Steps(start=1.0, factor=(0.1, 0.5), at=(3,))
    with pytest.raises(ValueError, match="greater than 0"):
        Steps(start=1.0, factor=(0.1, 0.0), at=(3, 4))


@pytest.mark.parametrize("apart", [16, 0])
def test_batch_norm_in_groups_equals_one_norm_for_each_group(apart: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the groups are normalised one after the other, or all at once."""
    monkeypatch.setattr(batch_norm, "_APART", apart)
    torch.manual_seed(0)
    plain = nn.Sequential(nn.BatchNorm2d(3))
    nn.init.uniform_(plain[0].weight)
    grouped = nn.Sequential(nn.BatchNorm2d(3))
    grouped.load_state_dict(plain.state_dict())
    batch_norm.convert(grouped, 4)
    x = torch.randn(12, 3, 5, 5, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    out = grouped(x)
    expected = torch.cat([plain(part) for part in y.split(4)])
    weights = torch.randn_like(out)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(grouped[0].weight.grad, plain[0].weight.grad)
    means = torch.stack([part.mean((0, 2, 3)) for part in y.detach().split(4)]).mean(0)
    torch.testing.assert_close(grouped[0].running_mean, 0.1 * means)


def test_mlp_layer_by_layer() -> None:
    layers = (
        Layer(width=5, bias=False, norm="batch", activation="relu", init_std=0.01),
        Layer(width=4, bias=False, norm="batch", affine="scale"),
        Layer(width=4, norm="batch", affine="none"),
    )
    net, width = mlp(3, layers)
    names = {name: tuple(p.shape) for name, p in net.named_parameters()}
    assert width == 4
    assert names == {
        "0.weight": (5, 3),
        "1.weight": (5,),
        "1.bias": (5,),
        "3.weight": (4, 5),
        "4.weight": (4,),
        "5.weight": (4, 4),
        "5.bias": (4,),
    }
    assert net[0].weight.std() < 0.03
    assert net(torch.randn(6, 3)).shape == (6, 4)


@pytest.mark.parametrize(("name", "width"), [("resnet18", 512), ("convnext_tiny", 768), ("mobilenet_v3_small", 1024)])
def test_torchvision_backbones_lose_their_classifier(name: str, width: int) -> None:
    from contralex.kinds.backbones.specs import TorchvisionBackboneSpec

    model, found = TorchvisionBackboneSpec(name=name).build()
    assert found == width
    assert model.eval()(torch.rand(1, 3, 64, 64)).shape == (1, width)
