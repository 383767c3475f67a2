"""The formulas of docs/performance.md against what is counted, on one process and on two."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks import processes
from benchmarks.scale import BATCH, Collectives, counted, exchanged, one_step
from benchmarks.scale_sizes import gathered_bytes
from tests.processes import free_port, join, spawn

DIM = 128  # of the vectors of the presets `digits`
TAGS = 24 * BATCH  # bytes of three integers for each key of one view, at the most


@pytest.mark.parametrize("name", ["in-batch, both views (SimCLR)", "in-batch, the other view (CLIP)", "queue (MoCo)"])
@pytest.mark.parametrize("size", [128, 2048])
def test_the_products_of_a_look_up_grow_with_queries_and_entries(name: str, size: int) -> None:
    queries, entries, found = counted(name, size)
    per = found.flops / (queries * entries * DIM)
    assert 2 <= per <= 10  # at least each score once, and at most every product twice


def test_what_processes_exchange_follows_the_formulas() -> None:
    found = exchanged(2, ("simclr-v1", "moco-v2", "byol", "barlow"))
    both = gathered_bytes(BATCH, 2, DIM, gradient=True)
    one, images = gathered_bytes(BATCH, 1, DIM, gradient=False), BATCH * 3 * 32 * 32 * 4
    wide = gathered_bytes(BATCH, 1, 512, gradient=True) + 8 * 512**2 + 32 * 512
    expected = {
        "simclr-v1": (both, both + 2 * TAGS),
        "moco-v2": (images + one, images + 2 * (one + TAGS) + 8 * BATCH),
        "byol": (both // 2, both // 2 + 2 * TAGS),
        "barlow": (wide, wide + TAGS),
    }
    for recipe, (least, most) in expected.items():
        total = sum(size for size, _ in found[recipe].values())
        assert least <= total <= most, recipe


def test_keys_with_positions_stay_where_no_part_compares_samples() -> None:
    """A step of I-JEPA and of MAE exchanges nothing; gathered, their keys would be as many bytes as the docs say."""
    queue = mp.get_context("forkserver").SimpleQueue()
    port = free_port()
    spawn(_count_with_and_without, (port, queue))
    found = queue.get()
    samples = 8 * BATCH  # the tags that are gathered: positions are known
    ijepa, mae = (gathered_bytes(BATCH, patches, dim, gradient=False) for patches, dim in ((64, 96), (64, 48)))
    assert found == {"ijepa": (0, ijepa + samples), "mae": (0, mae + samples)}
    assert (ijepa + samples, mae) == (786_688, 393_216)


def _count_with_and_without(rank: int, port: int, queue: Any) -> None:
    """The bytes of a step as it is, and as it would be with a loss that compared samples."""
    from contralex_ijepa.loss import SmoothL1
    from contralex_mae.loss import SquaredError

    join(rank, port)
    found = {}
    for recipe, loss in (("ijepa", SmoothL1), ("mae", SquaredError)):
        counts = []
        for compares in (False, True):
            with mock.patch.object(loss, "compares_samples", compares), Collectives() as seen:
                one_step(recipe)()
            counts.append(sum(seen.bytes.values()))
        found[recipe] = tuple(counts)
    if rank == 0:
        queue.put(found)
    dist.barrier()
    dist.destroy_process_group()


def test_steps_on_two_processes_are_what_the_formulas_say() -> None:
    recipes = ("simclr-v1", "barlow")  # synchronised BatchNorm; statistics over the batch as well
    found = {world: processes.measure(world, recipes, 1) for world in (1, 2)}
    rows = processes.counted_rows(found)[2:]
    assert [row.rpartition("|")[0].rpartition("|")[2].strip() for row in rows] == [processes.YES] * len(rows), rows
    assert all(one.reduced > 0 and one.exchanged > 0 for one in found[2].values())
    assert all(one.step > 0 and one.networks > 0 for each in found.values() for one in each.values())
    assert len(processes.time_rows(found)) == 2 + 2 * len(recipes)
