"""What each of the two processes of ``two_equal_one`` runs: every trial's steps, one file of results for each."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from contralex import compat
from contralex.lookup import distributed
from contralex.lookup.view import View, ViewBatch, company_of, pixels_of
from contralex.testing.check_errors import explain_error
from contralex.testing.trials import SEEDS, Trial

States = list[dict[str, dict[str, Tensor]]]


def steps(trial: Trial) -> States:
    """With each seed: the losses of two steps, the gradients of the first, and the state after the second."""
    return [_steps(trial.with_seed(seed)) for seed in SEEDS]


def _steps(trial: Trial) -> dict[str, dict[str, Tensor]]:
    model = trial.build()
    optimizer = trial.optimizer(model)
    module: nn.Module = model
    if distributed.world() > 1:
        with compat.broadcast_buffers_argument():
            module = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    loss = distributed.mean_over_processes(trial.advance(model, optimizer, 0, module).loss.detach())
    grad = {f"the gradient of {name}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    later = distributed.mean_over_processes(trial.advance(model, optimizer, 1, module).loss.detach())
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return {"first": {"the loss": loss}, "grad": grad, "second": {"the loss of a second step": later}, "state": state}


def result(folder: Path, rank: int, number: int) -> Path:
    """Where this process leaves what came of this trial."""
    return folder / f"{rank}-{number}.pt"


def plain_views(views: Mapping[int, ViewBatch]) -> dict[int, tuple[Tensor, dict[str, Tensor]]]:
    """Tensors alone, which a file may hold that is read with ``weights_only``."""
    return {view: (pixels_of(made), company_of(made)) for view, made in views.items()}


def join_views(plain: Mapping[int, tuple[Tensor, dict[str, Tensor]]]) -> dict[int, ViewBatch]:
    return {view: View(pixels, **company) if company else pixels for view, (pixels, company) in plain.items()}


def main(folder: Path, rank: int, patience: float) -> None:
    torch.set_num_threads(1)
    for number, (label, data, views) in enumerate(torch.load(folder / "trials.pt", weights_only=True)):
        # A group of its own for each trial: where one process raises, the group ends, and so does the other's wait.
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/store-{number}",
            rank=rank,
            world_size=2,
            timeout=timedelta(seconds=patience),
        )
        out: Any
        try:
            out = steps(Trial(label, json.loads(data), given=join_views(views)))
        except Exception as error:  # one part's mistake is that part's
            out = explain_error(error).removeprefix("it ")
        compat.destroy_process_group()
        draft = folder / f"{rank}.draft"
        torch.save(out, draft)
        draft.rename(result(folder, rank, number))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
