"""Two gloo processes equal one: the loss, every gradient, and the whole state after two optimiser steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from contralex.lookup import batch_norm, distributed
from contralex.lookup.clock import Clock
from contralex.lookup.values import Step
from contralex.recipes.layers import resolve
from contralex.training import build, optimizers
from tests.margins import same_counts, undecided
from tests.processes import free_port, join, spawn

B, POPULATION, STEPS = 8, 40, 2
SGD = "train.optimizer={kind: sgd, lr: 0.05}"
SMALL = ("method.encoder.backbone={kind: conv, widths: [8, 12], strides: [2, 2]}",)
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "instdisc": ("instdisc", (*SMALL, "method.negatives.draws=16", "train.batch_norm=sync")),
    "instdisc-cifar": ("instdisc-cifar", (*SMALL, "train.batch_norm=sync")),
    # MoCo, CPC and BYOL not with Adam, whose first steps divide by gradients so small that rounding decides their sign.
    "moco, groups and shuffle-BN": ("moco-v2", (*SMALL, SGD, "method.negatives.size=12", "train.batch_norm=4")),
    "moco, sync": ("moco-v2", (*SMALL, SGD, "method.negatives.size=12", "train.batch_norm=sync")),
    "simclr-v1": ("simclr-v1", SMALL),
    "cpc": ("cpc", (SGD,)),
    "swav": ("swav", (*SMALL, "method.negatives.count=10")),
    "swav, queue": (
        "swav-small-batch",
        (*SMALL, "method.negatives.count=10", "method.targets.queue={size: 8, start_epoch: 0}"),
    ),
    "byol": ("byol", (*SMALL, SGD)),
    "swav's targets, momentum keys": (
        "swav",
        (*SMALL, "method.negatives.count=10", "method.key_encoder={kind: momentum, momentum: 0.9}"),
    ),
}


def views(recipe: str) -> dict[int, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if recipe == "cpc":
        return {0: torch.rand(B, 16, 3, 14, 14, generator=generator)}
    sizes = [16, 16, 12, 12] if recipe.startswith("swav") else [16, 16]
    return {view: torch.rand(B, 3, size, size, generator=generator) for view, size in enumerate(sizes)}


def trained(recipe: str, sets: tuple[str, ...]) -> dict[str, Any]:
    """Two steps on this process's share of the batch; what came of them."""
    spec = resolve(recipe, preset="digits", sets=[*sets, "train.precision=fp32", f"train.batch_size={B}"]).run
    model = build.look_up(spec, POPULATION)
    batch_norm.convert(model, spec.train.batch_norm)
    optimizer = optimizers.build(spec.train.optimizer, model)
    module: nn.Module = model
    if distributed.world() > 1:
        module = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    mine = distributed.own_slice(B // distributed.world())
    out: dict[str, Any] = {"loss": [], "accuracy": [], "undecided": []}
    for number in range(STEPS):
        moment = Step(Clock(number + 20, 100, 5), seed=0, batch=B)
        optimizers.set_rates(optimizer, spec.train.optimizer, moment.clock, B)
        optimizer.zero_grad()
        shown = {view: x[mine] for view, x in views(recipe).items()}
        with undecided(out["undecided"]):
            found = module(shown, torch.arange(3, 3 + B)[mine], moment)
        found.loss.backward()
        out["loss"].append(distributed.mean_over_processes(found.loss.detach()))
        out["accuracy"].append(distributed.mean_over_processes(found.accuracy))
        out["grad"] = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        optimizer.step()
        model.update(found.keys, moment)
    batch_norm.average_running_statistics(model)
    out["state"] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return out


def worker(rank: int, port: int, folder: str) -> None:
    join(rank, port)
    torch.save({name: trained(*case) for name, case in CASES.items()}, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    port = free_port()
    spawn(worker, (port, str(folder)))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(name: str, two: list[dict[str, Any]]) -> None:
    one = trained(*CASES[name])
    for result in (ranks[name] for ranks in two):
        torch.testing.assert_close(result["loss"], one["loss"], rtol=1e-5, atol=1e-5)
        same_counts(result["accuracy"], one["accuracy"], one["undecided"])
        assert result["grad"].keys() == one["grad"].keys()
        for part in ("grad", "state"):
            for key, value in one[part].items():
                torch.testing.assert_close(
                    result[part][key], value, rtol=1e-4, atol=2e-5, msg=lambda text, k=f"{part} {key}": f"{k}: {text}"
                )


def test_state_is_bitwise_alike_on_both_ranks(two: list[dict[str, Any]]) -> None:
    for name in CASES:
        for key, value in two[0][name]["state"].items():
            assert torch.equal(value, two[1][name]["state"][key]), f"{name}: {key}"
