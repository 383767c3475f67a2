"""What SimSiam and BYOL are made of, taken away: keys become alike in some dozens of steps (SimSiam, section 4.1; BYOL,
Table 5). With all of it they do not, though the loss falls as well."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from contralex.lookup.clock import Clock
from contralex.plugin import Step
from contralex.recipes.layers import resolve
from contralex.training import build
from contralex.training.health import measure_keys

B, BATCHES = 32, 4
SMALL = "method.encoder.backbone={kind: conv, widths: [8, 16], strides: [2, 2]}"
GRADIENT = "method.key_encoder={kind: shared, gradient: true}"
STOPPED = "method.key_encoder={kind: shared, gradient: false}"
NO_PREDICTOR = "method.encoder.predictor=[]"
# SimSiam's head, narrower and with one layer less.
OWN = (
    "method.encoder.projector=[{width: 256, bias: false, norm: batch, activation: relu}, "
    "{width: 256, bias: false, norm: batch, affine: none}]",
    "method.encoder.predictor=[{width: 64, bias: false, norm: batch, activation: relu}, {width: 256}]",
)
# A head that does not bring its output to variance 1 in each dimension, as SimSiam's last BatchNorm does.
FREE = (
    "method.encoder.projector=[{width: 64, norm: batch, activation: relu}, {width: 32}]",
    "method.encoder.predictor=[{width: 16, norm: batch, activation: relu}, {width: 32}]",
)


def health(recipe: str, *sets: str, rate: float, steps: int) -> dict[str, float]:
    """How the keys of the last step lie, after training on coloured squares with noise, of which each is a sample."""
    torch.manual_seed(0)
    model = build.look_up(resolve(recipe, preset="digits", sets=[SMALL, *sets]).run, B * BATCHES).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=rate, momentum=0.9, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(0)
    images = F.interpolate(torch.rand(B * BATCHES, 3, 4, 4, generator=generator), size=16)
    first = last = torch.zeros(())
    keys = torch.zeros(B, 1)
    for number in range(steps):
        sample = torch.arange(B) + number % BATCHES * B
        noise = torch.randn(2, B, 3, 16, 16, generator=generator)
        moment = Step(Clock(number, steps, BATCHES), seed=0, batch=B)
        found = model({view: images[sample] + 0.3 * noise[view] for view in (0, 1)}, sample, moment)
        optimizer.zero_grad()
        found.loss.backward()
        optimizer.step()
        model.update(found.keys, moment)
        last, keys = found.loss.detach(), found.keys.select_view(0).vectors
        first = first if number else last
    assert last < first / 2  # all of them learn what they are told
    return measure_keys(keys, entries=0)


def test_simsiam_with_a_gradient_on_both_sides_collapses_to_a_point() -> None:
    whole = health("simsiam", *FREE, rate=0.2, steps=60)
    without = health("simsiam", *FREE, GRADIENT, rate=0.2, steps=60)
    assert whole["feature_std"] > 0.7  # near 1: unit vectors in every direction
    assert without["feature_std"] < 0.2


def test_simsiam_with_a_gradient_on_both_sides_collapses_to_few_directions() -> None:
    """With the paper's own head, whose last BatchNorm keeps each dimension's spread but not how many there are."""
    whole = health("simsiam", *OWN, rate=0.3, steps=60)
    without = health("simsiam", *OWN, GRADIENT, rate=0.3, steps=60)
    assert whole["effective_rank"] > 15
    assert without["effective_rank"] < 8
    assert min(whole["feature_std"], without["feature_std"]) > 0.9


@pytest.mark.parametrize(
    "keys", [STOPPED, "method.key_encoder={kind: momentum, momentum: 0.0, init: copy}"], ids=["shared", "momentum 0"]
)
def test_byol_without_predictor_and_moving_average_collapses(keys: str) -> None:
    assert health("byol", rate=0.05, steps=60)["feature_std"] > 0.7
    assert health("byol", NO_PREDICTOR, keys, rate=0.05, steps=60)["feature_std"] < 0.2
