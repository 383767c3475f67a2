"""The collectives of a look-up have a gradient whose gradient is that of one process, too: a penalty on a gradient."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup import distributed
from contralex.lookup.shards import Shards
from tests.processes import free_port, join, spawn

B, D, M = 4, 3, 5


def table(rows: int, seed: int) -> Tensor:
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def penalise(x: Tensor, entries: Shards) -> Tensor:
    """The gradient of the squared gradient of a loss over all rows, of which ``x`` are this process's."""
    x = x.clone().requires_grad_()
    everyone = distributed.gather(x, gradient=True)
    spread = distributed.mean_over_processes(x.square().mean(dim=0))
    own = torch.arange(len(everyone))[distributed.own_slice(len(x))]
    among = F.cross_entropy(x @ everyone.T, own, reduction="sum")
    loss = among + entries.scores(x).exp().sum() + len(x) * spread.pow(3).sum()
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    (second,) = torch.autograd.grad(first.pow(2).sum(), x)
    return second


def shards() -> Shards:
    whole = torch.cat([table(M, 1), torch.zeros(1, D, dtype=torch.float64)])
    rows = -(-M // distributed.world())
    return Shards(whole[distributed.rank() * rows :][:rows], M)


def worker(rank: int, port: int, folder: str) -> None:
    join(rank, port)
    torch.save(penalise(table(B, 0)[distributed.own_slice(B // 2)], shards()), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_second_derivative_of_one(tmp_path: Path) -> None:
    port = free_port()
    spawn(worker, (port, str(tmp_path)))
    found = torch.cat([torch.load(tmp_path / f"{rank}.pt") for rank in range(2)])
    torch.testing.assert_close(found, penalise(table(B, 0), shards()), rtol=1e-10, atol=1e-10)
