"""A dictionary in parts equals a replicated one, and one process: losses, gradients, contents, and what is saved."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.lookup import batch_norm, distributed
from contralex.lookup.clock import Clock
from contralex.lookup.sharded_state import gather_state, select_own_state, sharded_buffers
from contralex.lookup.shards import rows_per_process
from contralex.lookup.step import LookUp
from contralex.lookup.values import Rows, Step
from contralex.recipes.layers import resolve
from contralex.recipes.run_spec import RunSpec
from contralex.training import build, optimizers
from tests.distributed.test_two_processes import SGD, SMALL, B, views
from tests.margins import same_counts, undecided
from tests.processes import free_port, spawn

POPULATION, STEPS = 41, 3  # 41 and the queues' sizes are multiples of neither 2, 4 nor the batch
PLACEMENTS = ("replicated", "sharded")
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "queue": ("moco-v2", (SGD, "method.negatives.size=13")),
    "queue of less than a batch": ("moco-v2", (SGD, "method.negatives.size=5")),
    "bank with draws": ("instdisc", ("method.negatives.draws=16",)),
    "bank with draws, half": ("instdisc", ("method.negatives.draws=16", "method.negatives.dtype=bfloat16")),
    "whole bank": ("instdisc-cifar", ()),
}
DRAWN = [name for name in CASES if "draws" in name]


def spec_of(case: str, placement: str) -> RunSpec:
    recipe, sets = CASES[case]
    every = ("train.precision=fp32", f"train.batch_size={B}", "train.batch_norm=sync")
    return resolve(recipe, preset="digits", sets=[*SMALL, *sets, *every, f"method.negatives.placement={placement}"]).run


def wrapped(model: LookUp) -> nn.Module:
    return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False) if distributed.world() > 1 else model


def moment(number: int) -> Step:
    return Step(Clock(number + 20, 100, 5), seed=0, batch=B)


def trained(case: str, placement: str) -> dict[str, Any]:
    """Three steps on this process's share of the batch; what came of them, and the whole state before and after."""
    spec = spec_of(case, placement)
    model = build.look_up(spec, POPULATION)
    batch_norm.convert(model, spec.train.batch_norm)
    optimizer, module = optimizers.build(spec.train.optimizer, model), wrapped(model)
    out: dict[str, Any] = {"start": kept(gather_state(model)), "loss": [], "accuracy": [], "undecided": [], "grads": []}
    mine = distributed.own_slice(B // distributed.world())
    for number in range(STEPS):
        now = moment(number)  # one for the look-up and for the update
        optimizers.set_rates(optimizer, spec.train.optimizer, now.clock, B)
        optimizer.zero_grad()
        sample = torch.arange(5 * number, 5 * number + B) % POPULATION
        shown = {view: (x + number / 10)[mine] for view, x in views(spec.name).items()}
        with undecided(out["undecided"]):
            found = module(shown, sample[mine], now)
        found.loss.backward()
        out["loss"].append(distributed.mean_over_processes(found.loss.detach()))
        out["accuracy"].append(distributed.mean_over_processes(found.accuracy))
        out["grads"].append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        optimizer.step()
        model.update(found.keys, now)
    batch_norm.average_running_statistics(model)
    out["state"] = kept(gather_state(model))
    out["held"] = {name: len(model.state_dict()[name]) for name in sharded_buffers(model)}
    return out


def written(case: str, placement: str) -> dict[str, Tensor]:
    """The whole negatives after three updates with keys that do not depend on any rounding."""
    model, generator = build.look_up(spec_of(case, placement), POPULATION), torch.Generator().manual_seed(0)
    if distributed.world() > 1:  # broadcasting buffers makes the processes alike, and must leave the parts alone
        nn.parallel.DistributedDataParallel(model)
    for number in range(STEPS):
        vectors = F.normalize(torch.randn(B, model.encoder.dim, generator=generator), dim=1)
        view = model.key_views[0]
        model.negatives.update(
            Rows.from_view(vectors, torch.randperm(POPULATION, generator=generator)[:B], view), moment(number)
        )
    return kept(gather_state(model.negatives))


def loaded(case: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The whole state of a new model in parts that was given a whole state."""
    model = build.look_up(spec_of(case, "sharded"), POPULATION)
    with torch.no_grad():
        for buffer in model.negatives.buffers():
            buffer.zero_()
    model.load_state_dict(select_own_state(model, tensors))
    return kept(gather_state(model))


def kept(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def worker(rank: int, world: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world, timeout=timedelta(seconds=120))
    of_one = torch.load(Path(folder) / "one.pt", weights_only=True)
    out: dict[Any, Any] = {}
    for case in CASES:
        for placement in PLACEMENTS:
            out[case, placement] = {**trained(case, placement), "written": written(case, placement)}
        out[case, "loaded"] = loaded(case, of_one[case, "sharded"]["state"])
    torch.save(out, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def one() -> dict[Any, Any]:
    return {
        (case, placement): {**trained(case, placement), "written": written(case, placement)}
        for case in CASES
        for placement in PLACEMENTS
    }


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)], ids="{} processes".format)
def several(request: Any, one: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    torch.save(one, folder / "one.pt")
    port = free_port()
    spawn(worker, (request.param, port, str(folder)), request.param)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(request.param)]


def close(found: Any, expected: Any, what: str) -> None:
    torch.testing.assert_close(found["loss"], expected["loss"], rtol=1e-5, atol=1e-5)
    same_counts(found["accuracy"], expected["accuracy"], expected["undecided"])
    for mine, theirs in zip(found["grads"], expected["grads"], strict=True):
        assert mine.keys() == theirs.keys() and any(grad.abs().max() > 1e-4 for grad in theirs.values())
        for name, grad in theirs.items():
            torch.testing.assert_close(mine[name], grad, rtol=1e-4, atol=2e-5, msg=lambda t, n=name: f"{what} {n}: {t}")


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def contents_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        half = tensor.dtype == torch.bfloat16  # a rounding before the last bit may show in it
        tolerance = {"rtol": 1e-2, "atol": 1e-3} if half else {"rtol": 1e-4, "atol": 2e-5}
        torch.testing.assert_close(found[name], tensor, msg=lambda t, n=name: f"{n}: {t}", **tolerance)


@pytest.mark.parametrize("case", CASES)
def test_sharded_equals_replicated(case: str, several: Any) -> None:
    for rank in several:
        close(rank[case, "sharded"], rank[case, "replicated"], "replicated")
    contents_close(several[0][case, "sharded"]["state"], several[0][case, "replicated"]["state"])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_several_processes_equal_one(case: str, placement: str, several: Any, one: Any) -> None:
    for rank in several:
        close(rank[case, placement], one[case, "replicated"], "one process")
    contents_close(several[0][case, placement]["state"], one[case, "replicated"]["state"])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_contents_are_equal_bit_for_bit(case: str, placement: str, several: Any, one: Any) -> None:
    """At the start, and after three updates with the same keys; where rows are drawn, after training as well."""
    equal(several[0][case, placement]["start"], one[case, "replicated"]["start"])
    equal(one[case, placement]["start"], one[case, "replicated"]["start"])
    equal(several[0][case, placement]["written"], one[case, "replicated"]["written"])
    equal(one[case, placement]["written"], one[case, "replicated"]["written"])
    if case in DRAWN:
        equal(several[0][case, "sharded"]["state"], several[0][case, "replicated"]["state"])


@pytest.mark.parametrize("case", CASES)
def test_each_process_holds_its_part_alone(case: str, several: Any) -> None:
    for rank in several:
        assert rank[case, "replicated"]["held"] == {}
        for name, rows in rank[case, "sharded"]["held"].items():
            assert rows == -(-len(several[0][case, "sharded"]["state"][name]) // len(several))
        assert rank[case, "sharded"]["held"]


@pytest.mark.parametrize("case", CASES)
def test_what_is_saved_does_not_know_how_many_processes_there_were(case: str, several: Any, one: Any) -> None:
    assert rows_per_process(7) == 7  # here there is one process
    equal(several[0][case, "loaded"], one[case, "sharded"]["state"])  # of one, cut for several, and whole again
    of_several = several[0][case, "sharded"]["state"]
    equal(loaded(case, of_several), of_several)
