"""InvaSpread against loops over rows, written from the paper's equations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from contralex.lookup.step import LookUp
from tests.parity.test_methods import SAMPLE, B, embed, images, made, normal, same, step


def oracle(model: LookUp, views: dict[int, Tensor], temperature: float, m: float) -> Tensor:
    """Eqs. 3 to 6 for all 2B rows; the key's side of each product is a constant."""
    z = normal(embed(model.encoder, torch.cat([views[0], views[1]])))
    total = torch.zeros(())
    for i in range(2 * B):
        own = (i + B) % (2 * B)
        e = {j: torch.exp(z[i] @ z[j].detach() / temperature) for j in range(2 * B) if j != i}
        wrong = [j for j in e if j != own]
        denominator = e[own] + m * sum(e[j] for j in wrong)
        total = total - torch.log(e[own] / denominator)
        for j in wrong:
            total = total - m * torch.log(1 - e[j] / denominator)
    return total / (2 * B)


@pytest.mark.parametrize("m", [1.0, 1.5])
def test_invaspread(m: float) -> None:
    model, views = made("invaspread", "method.loss.temperature=0.5", f"method.loss.m={m}"), images(2)
    same(model, views, lambda: oracle(model, views, 0.5, m))


def test_keys_carry_no_gradient() -> None:
    """With it, the gradient is another: it is part of the method that the key's side stands still."""
    model, views = made("invaspread", "method.loss.temperature=0.5"), images(2)
    model(views, SAMPLE, step()).loss.backward()
    stopped = model.encoder.projector[0].weight.grad.clone()
    model.zero_grad()
    model.key_encoder.gradient = True
    model(views, SAMPLE, step()).loss.backward()
    assert (model.encoder.projector[0].weight.grad - stopped).norm() > 0.1 * stopped.norm()
