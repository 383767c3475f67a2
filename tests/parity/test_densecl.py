"""DenseCL against an implementation of its own, after WXinlong/DenseCL: loss, gradients and state, step after step, in
float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.lookup.step import LookUp
from contralex.lookup.values import Step
from tests.parity.test_methods import SAMPLE, B, equal, made, step

SIZE, MOMENTUM, TEMPERATURE, RATE = 24, 0.9, 0.2, 0.05
SETS = (
    f"method.negatives.size={SIZE}",
    f"method.look_ups.dense.negatives.size={SIZE}",
    f"method.key_encoder.momentum={MOMENTUM}",
    f"method.loss.temperature={TEMPERATURE}",
    f"method.look_ups.dense.loss.temperature={TEMPERATURE}",
)


def our_model(*sets: str) -> LookUp:
    return made("densecl", *SETS, *sets).double()


class Network(nn.Module):
    """Convolutions, an MLP on their mean, and 1x1 convolutions on their map, of which there is a mean as well."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*copy.deepcopy(list(encoder.backbone)[:-2]))
        self.mlp = copy.deepcopy(encoder.projector)
        self.mlp2 = nn.Sequential(*[self._as_convolution(layer) for layer in encoder.heads["dense"].projector])

    @staticmethod
    def _as_convolution(layer: nn.Module) -> nn.Module:
        if not isinstance(layer, nn.Linear):
            return copy.deepcopy(layer)
        made = nn.Conv2d(layer.in_features, layer.out_features, 1).double()
        with torch.no_grad():
            made.weight.copy_(layer.weight[:, :, None, None])
            made.bias.copy_(layer.bias)  # type: ignore[union-attr]
        return made

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The map (B, F, S²), the vector (B, D), the grid (B, D, S²) and the grid's mean (B, D), of unit length."""
        map_ = self.trunk(x)
        vector, grid = self.mlp(map_.mean(dim=(2, 3))), self.mlp2(map_)
        found = (map_.flatten(2), vector, grid.flatten(2), grid.mean(dim=(2, 3)))
        return tuple(F.normalize(each, dim=1) for each in found)  # type: ignore[return-value]


class Official:
    """Its step, with queues as columns and the key network moved before the keys are made."""

    def __init__(self, model: Any) -> None:
        self.q, self.k = Network(model.encoder), Network(model.key_encoder.encoder)
        self.queue = model.negatives.vectors.T.clone()
        self.queue2 = model.look_ups["dense"].negatives.vectors.T.clone()
        self.pointer = 0

    def loss(self, views: dict[int, Tensor]) -> Tensor:
        q_map, q, q_grid, _ = self.q(views[0])
        with torch.no_grad():
            k_map, k, k_grid, k_mean = self.k(views[1])
        self.keys = (k, k_mean)
        image, dense = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        places = q_grid.shape[2]
        for i in range(B):
            image = image + self._cross_entropy(q[i], k[i], self.queue)
            for s in range(places):
                similar = [float((q_map[i, :, s] @ k_map[i, :, t]).detach()) for t in range(places)]
                best = similar.index(max(similar))
                dense = dense + self._cross_entropy(q_grid[i, :, s], k_grid[i, :, best], self.queue2)
        return 0.5 * image / B + 0.5 * dense / (B * places)

    @staticmethod
    def _cross_entropy(query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
        logits = torch.cat([(query @ key).unsqueeze(0), query @ queue]) / TEMPERATURE
        return torch.logsumexp(logits, 0) - logits[0]

    @torch.no_grad()
    def follow(self) -> None:
        for at in range(B):
            column = (self.pointer + at) % SIZE
            self.queue[:, column], self.queue2[:, column] = self.keys[0][at], self.keys[1][at]
        self.pointer = (self.pointer + B) % SIZE
        for mine, theirs in zip(self.k.parameters(), self.q.parameters(), strict=True):
            mine.mul_(MOMENTUM).add_(theirs, alpha=1 - MOMENTUM)


def images(turn: int) -> dict[int, Tensor]:
    generator = torch.Generator().manual_seed(turn)
    base = torch.rand(B, 3, 16, 16, generator=generator, dtype=torch.float64)
    noise = torch.rand(2, B, 3, 16, 16, generator=generator, dtype=torch.float64)
    return {0: base + 0.3 * noise[0], 1: base.roll(4, dims=3) + 0.3 * noise[1]}


def pairs(model: Any, official: Official) -> list[tuple[str, nn.Parameter, nn.Parameter]]:
    encoder = model.encoder
    mine = [*encoder.backbone.parameters(), *encoder.projector.parameters(), *encoder.heads.parameters()]
    return [(f"parameter {n}", a, b) for n, (a, b) in enumerate(zip(mine, official.q.parameters(), strict=True))]


@pytest.mark.parametrize("shuffle", [False, True])
def test_equals_the_official_step_by_step(shuffle: bool) -> None:
    model: Any = our_model(f"method.key_encoder.shuffle_bn={str(shuffle).lower()}")
    official = Official(model)
    ours = torch.optim.SGD(model.encoder.parameters(), lr=RATE, momentum=0.9)
    theirs = torch.optim.SGD(official.q.parameters(), lr=RATE, momentum=0.9)
    for turn in range(5):  # 40 keys go round the end of both queues
        views, moment = images(turn), step(turn)
        found, expected = model(views, SAMPLE, moment), official.loss(views)
        equal(found.loss, expected, f"loss {turn}")
        ours.zero_grad()
        theirs.zero_grad()
        found.loss.backward()
        expected.backward()
        for name, mine, other in pairs(model, official):
            equal(mine.grad, other.grad, f"gradient of {name}, {turn}")
        ours.step()
        theirs.step()
        model.update(found.keys, moment)
        official.follow()
        dense = model.look_ups["dense"].negatives
        equal(model.negatives.vectors.T, official.queue, "queue")
        equal(dense.vectors.T, official.queue2, "queue2")
        assert int(dense.pointer) == int(model.negatives.pointer) == official.pointer
    key = model.key_encoder.encoder
    mine = [*key.backbone.parameters(), *key.projector.parameters(), *key.heads.parameters()]
    for number, (a, b) in enumerate(zip(mine, official.k.parameters(), strict=True)):
        equal(a, b, f"key parameter {number}")
    assert set(found.answers) == {"main", "dense"}
    assert found.answers["dense"].entries == 1 + SIZE


def test_places_meet_where_the_backbone_says_and_not_the_head() -> None:
    on_the_map, on_the_head = our_model(), our_model("method.look_ups.dense.negatives.match=null")
    views = images(0)
    one, other = (model(views, SAMPLE, step()).answers["dense"].loss for model in (on_the_map, on_the_head))
    assert float(other) < float(one)  # the head's own best matches score higher


def test_no_gradient_goes_through_the_match() -> None:
    """The map that decides is the backbone's, and moves by its places' vectors alone."""
    model: Any = our_model("method.weight=0")
    moment = step()
    found = model(images(0), SAMPLE, moment)
    found.loss.backward()
    assert model.encoder.projector[0].weight.grad is None or not model.encoder.projector[0].weight.grad.any()
    assert model.encoder.heads["dense"].projector[0].weight.grad.any()
    assert not moment.keys["map"].vectors.requires_grad


def simclr(match: str) -> LookUp:
    dense = (
        "method.encoder.outputs={map: {reads: places}, dense: {reads: places, projector: [{width: 6}]}}",
        "method.look_ups.dense={of: dense, negatives: {kind: in_batch, views: matched}, "
        f"targets: {{kind: best_place, match: {match}}}, "
        "loss: {kind: info_nce, temperature: 0.5}, matches: every, weight: 0.5}",
    )
    return made("simclr-v1", *dense)


def test_simclr_with_a_dense_look_up_is_a_few_lines() -> None:
    model: Any = simclr("map")
    views = images(0)
    moment = Step(step().clock, seed=0, batch=B)
    found = model(views, SAMPLE, moment)
    encoder = model.encoder
    places = [encoder.backbone.encode_places(torch.cat([views[0], views[1]]))[1].split(B)[view] for view in (0, 1)]
    dense = [F.normalize(encoder.heads["dense"].projector(each), dim=2) for each in places]
    total, count = torch.zeros(()), 0
    for query, key in ((0, 1), (1, 0)):
        entries = dense[key].flatten(0, 1)
        for i in range(B):
            for s in range(places[0].shape[1]):
                best = max(
                    range(places[0].shape[1]),
                    key=lambda t: float(F.cosine_similarity(places[query][i, s], places[key][i, t], dim=0).detach()),
                )
                scores = entries @ dense[query][i, s] / 0.5
                total = total + torch.logsumexp(scores, 0) - scores[i * places[0].shape[1] + best]
                count += 1
    equal(found.answers["dense"].loss, total / count, "the loss of places")
    found.loss.backward()
    assert encoder.heads["dense"].projector[0].weight.grad.any()
