"""CPC v2, from patches to loss, against loops over directions, columns, rows and candidates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup.step import LookUp
from tests.parity.test_methods import B, made, same

SIDE = 4
SMALL = (
    "method.encoder.network={blocks: [1, 1], widths: [4, 6], outputs: [8, 12], stem: small, norm: layer}",
    "method.encoder.target_dim=5",
)
# From the place that predicts to the place k steps on, as (row, column).
WAY = {"down": (1, 0), "up": (-1, 0), "left": (0, -1), "right": (0, 1)}


def cpc(*sets: str) -> LookUp:
    torch.manual_seed(0)
    model = made("cpc-v2", *SMALL, *sets)
    for block in model.encoder.network.modules():  # branches that start at zero would hide their gradients
        if hasattr(block, "expand"):
            torch.nn.init.normal_(block.expand.weight, std=0.3)
    for linear in (model.encoder.target, *(k for way in model.encoder.directions.values() for k in way.predict)):
        torch.nn.init.normal_(linear.weight)  # larger than at the start, where predictions hardly differ
    return model


def patches() -> Tensor:
    return torch.rand(B, SIDE**2, 3, 14, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def network(net: Any, patch: Tensor) -> Tensor:
    """(N, 3, H, W) to (N, 12): the pre-activation network with LayerNorm, written out."""

    def norm(x: Tensor, layer: Any) -> Tensor:
        flat = x.flatten(1)
        scaled = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        return scaled.view_as(x) * layer.weight.view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1)

    def conv(x: Tensor, layer: Any, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, layer.weight, layer.bias, stride, padding)

    stem, first, second, last = net[0], net[1], net[2], net[3]
    x = conv(patch, stem, padding=1)
    for block, stride in ((first, 1), (second, 2)):
        active = norm(x, block.norms[0]).relu()
        y = norm(conv(active, block.reduce), block.norms[1]).relu()
        y = norm(conv(y, block.space, stride, 1), block.norms[2]).relu()
        x = conv(y, block.expand) + conv(active, block.shortcut, stride)
    return norm(x, last).relu().mean(dim=(2, 3))


@pytest.mark.parametrize(("steps", "skip"), [(2, 0), (3, 1)])
def test_cpc_v2(steps: int, skip: int) -> None:
    model, given = cpc(f"method.encoder.steps={steps}", f"method.encoder.skip={skip}"), patches()
    encoder = model.encoder

    def oracle() -> Tensor:
        z = torch.stack([network(encoder.network, given[:, p]) for p in range(SIDE**2)], dim=1)
        z = z.view(B, SIDE, SIDE, -1)
        everywhere = [z[i, row, column] for i in range(B) for row in range(SIDE) for column in range(SIDE)]
        entries = torch.stack([encoder.target.weight @ latent for latent in everywhere])
        losses = []
        for name, (down, right) in WAY.items():
            part = encoder.directions[name]
            for line in range(SIDE):
                # The line of places along which it predicts, in the order of the context.
                walk = [(at, line) if down else (line, at) for at in range(SIDE)]
                if down + right < 0:
                    walk.reverse()
                contexts, _ = part.context.gru(torch.stack([z[:, r, c] for r, c in walk], dim=1))
                for number, linear in enumerate(part.predict):
                    k = skip + 1 + number
                    for at in range(SIDE - k):
                        r, c = walk[at + k]
                        scores = 0.1 * linear(contexts[:, at]) @ entries.T
                        truth = torch.arange(B) * SIDE**2 + r * SIDE + c
                        losses += list(torch.logsumexp(scores, 1) - scores[torch.arange(B), truth])
        return torch.stack(losses).mean()

    assert len(encoder.directions["up"].predict) == steps - skip
    same(model, {0: given}, oracle)


@pytest.mark.parametrize("context", ["{kind: gru, width: 7}", "{kind: pixelcnn, blocks: 2, width: 6}"])
@pytest.mark.parametrize(
    ("direction", "turn"),
    [
        ("up", lambda grid: grid.flip(1)),
        ("right", lambda grid: grid.transpose(1, 2)),
        ("left", lambda grid: grid.flip(2).transpose(1, 2)),
    ],
)
def test_a_direction_is_down_in_the_turned_image(direction: str, turn: Any, context: str) -> None:
    down, other = (
        cpc(f"method.encoder.directions=[{name}]", f"method.encoder.context={context}") for name in ("down", direction)
    )
    other.encoder.directions[direction].load_state_dict(down.encoder.directions["down"].state_dict())
    other.encoder.network.load_state_dict(down.encoder.network.state_dict())

    def asked(model: LookUp, given: Tensor) -> tuple[Tensor, Tensor]:
        vectors, positions = model.encoder.queries(model.encoder({0: given}))[0]
        assert positions is not None
        return vectors, positions

    given = patches()
    turned = turn(given.unflatten(1, (SIDE, SIDE))).flatten(1, 2)
    vectors, positions = asked(other, given)
    expected, places = asked(down, turned)
    torch.testing.assert_close(vectors, expected)
    # A place of the turned image holds the patch of this place of the image.
    there = turn(torch.arange(SIDE**2).view(1, SIDE, SIDE)).flatten()
    assert torch.equal(positions, there[places])
    assert not torch.equal(positions, places)
