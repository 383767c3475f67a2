"""BatchNorm's running statistics, averaged over the processes once before they are used, are those of every step."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from contralex.lookup import batch_norm, distributed
from tests.processes import free_port, join, spawn

STEPS, B = 5, 8


def running(processes: int, every: int) -> dict[str, Tensor]:
    """After some steps on this process's part of each batch; averaged at ``every`` step, and at the end."""
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3, momentum=None))
    batch_norm.convert(model, 2)
    for step in range(STEPS):
        x = torch.randn(B, 3, generator=torch.Generator().manual_seed(step)) * (step + 1)
        model(x.chunk(processes)[distributed.rank()])
        if (step + 1) % every == 0:
            batch_norm.average_running_statistics(model)
    batch_norm.average_running_statistics(model)
    return model.state_dict()


def worker(rank: int, port: int, folder: str) -> None:
    join(rank, port)
    torch.save([running(2, every) for every in (1, 2, STEPS)], Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_one_average_is_that_of_all_steps(tmp_path: Path) -> None:
    port = free_port()
    spawn(worker, (port, str(tmp_path)))
    alone = running(1, 1)
    assert not torch.equal(alone["0.running_var"], torch.ones(3))
    for rank in range(2):
        for found in torch.load(tmp_path / f"{rank}.pt"):
            torch.testing.assert_close(found, alone)
