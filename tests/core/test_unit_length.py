"""Rows of unit length, beside torch's own formula and its gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from contralex.lookup.unit_length import to_unit_length


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def differentiate(function: object, vectors: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    leaf = vectors.clone().requires_grad_()
    units = function(leaf)  # type: ignore[operator]
    units.backward(gradient.to(units))
    assert leaf.grad is not None
    return units.detach(), leaf.grad


def plain(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=1)


def test_lengths_and_gradients_are_those_of_torch() -> None:
    vectors, gradient = draw(9, 5) * torch.logspace(-8, 8, 9).unsqueeze(1), draw(9, 5)
    units, of_vectors = differentiate(to_unit_length, vectors, gradient)
    assert torch.equal(units, plain(vectors))
    exact, wanted = differentiate(plain, vectors.double(), gradient)
    torch.testing.assert_close(units.double(), exact, rtol=0, atol=1e-7)
    lengths = vectors.double().norm(dim=1, keepdim=True)
    torch.testing.assert_close(of_vectors * lengths, wanted * lengths, rtol=0, atol=1e-6)


def test_a_row_of_zeros_stays_one_and_has_the_gradient_of_torch() -> None:
    vectors, gradient = torch.zeros(2, 3), draw(2, 3)
    for found, wanted in zip(
        differentiate(to_unit_length, vectors, gradient), differentiate(plain, vectors, gradient), strict=True
    ):
        assert torch.equal(found, wanted)


def test_the_gradient_has_a_gradient() -> None:
    vectors = draw(3, 4, dtype=torch.float64).requires_grad_()
    assert gradcheck(to_unit_length, vectors)
    assert gradgradcheck(to_unit_length, vectors)


def test_rows_of_batches_are_rows() -> None:
    vectors = draw(2, 3, 4).requires_grad_()
    assert torch.equal(to_unit_length(vectors), F.normalize(vectors, dim=2))
    assert torch.equal(torch.func.vmap(to_unit_length)(vectors), F.normalize(vectors, dim=2))


def test_transforms_of_torch_see_through_it() -> None:
    vectors = draw(3, 4)
    found, wanted = (torch.func.jacrev(lambda v, f=f: f(v))(vectors) for f in (to_unit_length, plain))
    torch.testing.assert_close(found, wanted)


def test_without_a_gradient_there_is_no_graph() -> None:
    with torch.no_grad():
        assert not to_unit_length(draw(2, 3).requires_grad_()).requires_grad
    assert not to_unit_length(draw(2, 3)).requires_grad
