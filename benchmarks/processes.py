"""What a step costs on 1, 2 and 4 gloo processes of this machine, beside the formulas of docs/performance.md.

python -m benchmarks.processes                    to docs/performance.md, between its marks
python -m benchmarks.processes --print            to the terminal alone
python -m benchmarks.processes --counted          memory and bytes alone, which do not need an idle machine

Each process has one thread. The batch is the same on any number of them, with the preset ``digits``. Memory is that of
torch's allocator, from before the method is built to the end of two steps. Times are only worth something on a
machine that does nothing else; with fewer cores than processes, these share them. A verdict says whether what is
measured is what the formula says. The exit code is 1 where a figure is not.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

import contralex
from benchmarks.loss import moment
from benchmarks.measuring import peak_bytes
from benchmarks.scale import WORLDS, Collectives, write_table
from benchmarks.scale_memory import memory_of, passing_bytes
from benchmarks.scale_sizes import Sizes, gathered_bytes, sizes_of_recipe
from contralex import compat
from contralex.data.loading import Batch, EpochSampler, ViewDataset, collate
from contralex.lookup import batch_norm
from contralex.lookup.step import LookUp
from contralex.recipes.run_spec import RunSpec
from contralex.training import build, optimizers
from contralex.training.activation_memory import bytes_kept
from tests.processes import free_port, join, spawn

RECIPES = ("simclr-v1", "moco-v2", "byol", "swav", "dino", "barlow")
BATCH, DATASET = 128, 1000
LIMIT = 300.0  # seconds for all recipes on a number of processes
NEAR = 0.25  # of the formula, within which a measured memory or time is what it says
SETS = {"train.precision": "fp32", "train.batch_size": BATCH}


@dataclass
class Measured:
    """Of the first process."""

    memory: int = 0
    """The most bytes at once, those of its part of the batch included."""
    kept: int = 0
    """Bytes that the encoder keeps of its part of the batch for the backward pass."""
    passing: int = 0
    """The most bytes at once of a momentum encoder's forward pass."""
    exchanged: int = 0
    """Bytes a step that come out of collectives, but for the gradients of the network."""
    reduced: int = 0
    """Bytes a step of gradients, as DistributedDataParallel hands them to its communication hook."""
    sums: int = 0
    """Of the channels that synchronised BatchNorms add up in a step, forward and backward."""
    networks: float = 0.0
    """Seconds of encoding and its backward pass, all processes at the same time, without an exchange."""
    step: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="Print the tables, and write nothing.")
    parser.add_argument("--counted", action="store_true", help="Measure no times.")
    parser.add_argument("--steps", type=int, default=15, help="Steps whose median time is taken.")
    arguments = parser.parse_args()
    found = {world: measure(world, RECIPES, 0 if arguments.counted else arguments.steps) for world in WORLDS}
    tables = {"processes": counted_rows(found)}
    if not arguments.counted:
        tables["step times"] = time_rows(found)
    for name, rows in tables.items():
        write_table(name, rows, only_print=arguments.print)
    sys.exit(any(f"| {NO}" in row for rows in tables.values() for row in rows))


# On each process


def measure(world: int, recipes: Sequence[str], steps: int) -> dict[str, Measured]:
    """``steps``: how many are timed; 0 for none."""
    context = mp.get_context("forkserver")
    queue, gate = context.SimpleQueue(), context.Barrier(world)
    spawn(_worker, (world, free_port(), tuple(recipes), steps, queue, gate), world, LIMIT)
    found: dict[str, Measured] = queue.get()
    return found


def _worker(rank: int, world: int, port: int, recipes: Sequence[str], steps: int, queue: Any, gate: Any) -> None:
    torch.set_num_threads(1)
    batches = {recipe: _read_batch(recipe, rank, world) for recipe in recipes}
    # Before the processes know of each other, so that nothing is exchanged.
    networks = {recipe: _time_networks(recipe, batches[recipe], steps, gate) for recipe in recipes}
    join(rank, port, world)
    found = {}
    for recipe in recipes:
        found[recipe] = replace(_measure_steps(recipe, batches[recipe], steps), networks=networks[recipe])
    if rank == 0:
        queue.put(found)
    dist.barrier()
    compat.destroy_process_group()


def _read_batch(recipe: str, rank: int, world: int) -> Batch:
    spec = _spec(recipe)
    split = spec.data.build().train()
    images = ViewDataset(split, spec.method.views.build(), spec.train.seed, BATCH)
    sampler = EpochSampler(len(split), BATCH, spec.train.seed, 1, rank, world)
    return collate([images[at] for at in next(iter(sampler))])


def _spec(recipe: str) -> RunSpec:
    return contralex.resolve(recipe, preset="digits", sets=SETS).run


def _time_networks(recipe: str, batch: Batch, steps: int, gate: Any) -> float:
    method = build.look_up(_spec(recipe), DATASET).train()

    def encode() -> None:
        queries, _ = method.encode_own(batch["views"], batch["index"], moment(len(batch["index"])))
        torch.stack([rows.vectors.sum() for rows in queries.values()]).sum().backward()

    gate.wait()
    return _median_seconds(encode, steps)


def _median_seconds(call: Callable[[], object], steps: int) -> float:
    """The median of some calls, after two that are not counted; 0 for none."""
    seconds = []
    for _ in range(steps + 2 if steps else 0):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[2:]) if steps else 0.0


class Training:
    """A recipe's method, wrapped as in a run, with its optimiser."""

    def __init__(self, recipe: str, batch: Batch) -> None:
        spec, self.batch, self.reduced = _spec(recipe), batch, 0
        self.method = build.look_up(spec, DATASET).train()
        batch_norm.convert(self.method, spec.train.batch_norm)
        fused = optimizers.can_fuse(self.method, "cpu", spec.train.precision)
        self.optimizer = optimizers.build(spec.train.optimizer, self.method, fused=fused)
        self.module: nn.Module = self.method
        if dist.get_world_size() > 1:
            with compat.broadcast_buffers_argument():
                wrapped = nn.parallel.DistributedDataParallel(self.method, broadcast_buffers=False)
            wrapped.register_comm_hook(None, lambda _, bucket: self._reduce(bucket))
            self.module = wrapped

    def _reduce(self, bucket: Any) -> torch.futures.Future[Tensor]:
        """The mean over the processes, as without a hook; its bytes are counted."""
        gradients = bucket.buffer()
        self.reduced += gradients.nbytes
        group = dist.group.WORLD
        assert group is not None
        work = group.allreduce([gradients.div_(dist.get_world_size())])
        return work.get_future().then(lambda done: done.value()[0])

    def step(self) -> None:
        now = moment(BATCH)
        result = self.module(self.batch["views"], self.batch["index"], now)
        result.loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.update(result.keys, now)


def _measure_steps(recipe: str, batch: Batch, steps: int) -> Measured:
    made: list[Training] = []

    def begin() -> None:
        made.append(Training(recipe, batch))
        for _ in range(2):  # after the first, DistributedDataParallel makes its buckets anew
            made[0].step()

    memory = peak_bytes(begin, warm_up=False) + sum(view.nbytes for view in batch["views"].values())
    training = made[0]
    spec, method = _spec(recipe), training.method
    kept = bytes_kept(spec, method.encoder, batch["views"])
    passing = passing_bytes(spec, method, batch["views"])
    training.reduced = 0
    with Collectives() as seen, ChannelSums(method) as norms:
        training.step()
    exchanged, reduced = sum(seen.bytes.values()), training.reduced
    step = _median_seconds(training.step, steps)
    return Measured(memory, kept, passing, exchanged, reduced, norms.count, step=step)


class ChannelSums:
    """Within, counts the sums of a channel that synchronised BatchNorms take: two in a forward pass, and two more where
    it has a gradient."""

    def __init__(self, method: LookUp) -> None:
        self.count = 0
        self._norms = [each for each in method.modules() if isinstance(each, batch_norm.SyncBatchNorm)]

    def __enter__(self) -> ChannelSums:
        self._hooks = [norm.register_forward_hook(self._add) for norm in self._norms]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _add(self, norm: nn.Module, _: object, out: Tensor) -> None:
        assert isinstance(norm, batch_norm.SyncBatchNorm)
        self.count += norm.num_features * (4 if out.requires_grad else 2)


# Beside the formulas


YES, NO = "holds", "falls short"


def counted_rows(found: Mapping[int, Mapping[str, Measured]]) -> list[str]:
    rows = [
        "| recipe | processes | activations, MB | dictionary | memory, MB | formula | exchanged, bytes | formula | "
        "gradients, bytes | 4·P | verdict |",
        "|---|" + "---|" * 10,
    ]
    for recipe in found[WORLDS[0]]:
        memory = memory_of(_spec(recipe), recipe, DATASET)
        sizes = sizes_of_recipe(recipe, SETS, "digits")
        for world, measured in found.items():
            one = measured[recipe]
            predicted = memory.network(world) + memory.twin + memory.tables + one.kept + one.passing
            exchanged = (exchanged_bytes(recipe, sizes) + 4 * one.sums) * (world > 1)
            reduced = memory.learnt * (world > 1)
            holds = near(one.memory, predicted) and (one.exchanged, one.reduced) == (exchanged, reduced)
            rows.append(
                f"| {recipe} | {world} | {one.kept / 1e6:.1f} | {memory.tables / 1e6:.2f} | {one.memory / 1e6:.1f} | "
                f"{predicted / 1e6:.1f} | {one.exchanged:,} | {exchanged:,} | {one.reduced:,} | {reduced:,} | "
                f"{YES if holds else NO} |"
            )
    return rows


def near(measured: float, predicted: float) -> bool:
    return abs(measured / predicted - 1) <= NEAR


def exchanged_bytes(recipe: str, sizes: Sizes) -> int:
    """What a process receives in a step by the table of docs/performance.md, but for BatchNorm and gradients."""
    keys = gathered_bytes(sizes.batch, len(sizes.key_views), sizes.dim, gradient=False)
    samples = 8 * sizes.batch
    shuffled = keys + samples if sizes.shuffled else 0
    correlation = 8 * sizes.dim**2 + 32 * sizes.dim if recipe == "barlow" else 0
    return sizes.exchanged() + samples + shuffled + correlation


def time_rows(found: Mapping[int, Mapping[str, Measured]]) -> list[str]:
    """The step is predicted from that of one process, by what the networks alone take on so many."""
    rows = [
        "| recipe | processes | networks alone, ms | a process has of the batch | step, ms | predicted, ms | verdict |",
        "|---|" + "---|" * 6,
    ]
    for recipe, single in found[WORLDS[0]].items():
        for world, measured in found.items():
            one = measured[recipe]
            predicted = single.step * one.networks / single.networks
            holds = YES if near(one.step, predicted) else NO
            rows.append(
                f"| {recipe} | {world} | {one.networks * 1e3:.0f} | 1/{world} | {one.step * 1e3:.0f} | "
                f"{predicted * 1e3:.0f} | {holds} ({one.step / predicted:.2f}) |"
            )
    return rows


if __name__ == "__main__":
    main()
