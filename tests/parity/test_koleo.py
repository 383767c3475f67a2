"""KoLeo against loops and against whole matrices, in float64, on one process and on two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from contralex.kinds.losses.parts import KoLeo
from contralex.lookup import distributed
from contralex.plugin import Clock, Dictionary, Rows, Step, Targets
from tests.processes import free_port, join, spawn

B, D = 8, 5


def vectors() -> Tensor:
    return torch.randn(B, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def koleo(x: Tensor, sample: Tensor) -> Tensor:
    step = Step(Clock(0, 10, 5), seed=0, batch=B)
    return KoLeo()(Rows.from_view(x, sample, 0), Dictionary(), Targets(vectors=x.detach()), step)


def loops(x: Tensor) -> Tensor:
    """spreadingvectors' loss without its factor, with DINOv2's two epsilons."""
    unit = [each / each.norm() for each in x]
    total = torch.zeros((), dtype=x.dtype)
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        nearest = max(others, key=lambda j: float((unit[i] @ unit[j]).detach()))
        total = total - torch.log((unit[i] - unit[nearest] + 1e-8).norm() + 1e-8)
    return total / len(x)


def matrices(x: Tensor) -> Tensor:
    unit = F.normalize(x, dim=1)
    distances = torch.cdist(unit, unit) + 10 * torch.eye(len(x), dtype=x.dtype)
    return -distances.min(dim=1).values.log().mean()


def gradient(x: Tensor, loss: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, x)
    return found


def test_equals_loops_with_its_gradient() -> None:
    mine, theirs = vectors().requires_grad_(), vectors().requires_grad_()
    found, expected = koleo(mine, torch.arange(B)), loops(theirs)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient(mine, found), gradient(theirs, expected), rtol=1e-10, atol=1e-12)


def test_equals_matrices_but_for_the_epsilons() -> None:
    mine, theirs = vectors().requires_grad_(), vectors().requires_grad_()
    found, expected = koleo(mine, torch.arange(B)), matrices(theirs)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient(mine, found), gradient(theirs, expected), rtol=1e-6, atol=1e-6)


def test_the_gradient_reaches_the_neighbour() -> None:
    """Of three vectors, the third is nobody's neighbour; the second is moved by its own distance and by two others."""
    x = torch.tensor([[1.0, 0.0], [0.9, 0.2], [-0.5, 1.0]], dtype=torch.float64, requires_grad=True)
    (one_end,) = torch.autograd.grad(koleo(x, torch.arange(3)), x)
    unit = F.normalize(x, dim=1)
    held = unit.detach()
    own = -sum(torch.log((unit[i] - held[j] + 1e-8).norm() + 1e-8) for i, j in ((0, 1), (1, 0), (2, 1))) / 3
    (own_gradient,) = torch.autograd.grad(own, x)
    torch.testing.assert_close(one_end[2], own_gradient[2])
    assert not torch.allclose(one_end[1], own_gradient[1])


def test_equal_vectors_have_a_finite_loss_and_gradient() -> None:
    x = torch.ones(4, D, requires_grad=True)
    loss = koleo(x, torch.arange(4))
    loss.backward()
    assert loss.isfinite() and x.grad is not None and x.grad.isfinite().all()
    assert 15 < float(loss) < 19  # −log of the epsilons


def test_descent_spreads_the_queries() -> None:
    x = (vectors() * 0.05 + 1).requires_grad_()
    before = F.normalize(x.detach(), dim=1)
    optimizer = torch.optim.SGD([x], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        koleo(x, torch.arange(B)).backward()
        optimizer.step()
    after = F.normalize(x.detach(), dim=1)
    assert torch.pdist(after).min() > 5 * torch.pdist(before).min()


def worker(rank: int, port: int, folder: str) -> None:
    join(rank, port)
    mine = distributed.own_slice(B // 2)
    x = vectors()[mine].requires_grad_()
    loss = koleo(x, torch.arange(B)[mine])
    torch.save((loss.detach(), gradient(x, loss)), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed")
def test_two_processes_equal_one(tmp_path: Path) -> None:
    port = free_port()
    spawn(worker, (port, str(tmp_path)))
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    x = vectors().requires_grad_()
    alone = koleo(x, torch.arange(B))
    torch.testing.assert_close(torch.stack([loss for loss, _ in parts]).mean(), alone.detach())
    # Each process's mean is over half of the batch: DistributedDataParallel's mean over the processes halves it.
    torch.testing.assert_close(torch.cat([grad for _, grad in parts]) / 2, gradient(x, alone))
