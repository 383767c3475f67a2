"""Measures what a memory bank of ImageNet's size costs each process that stays, replicated and sharded.

python benchmarks/bank_memory.py                  1, 2 and 4 processes on the CPU, to benchmarks/bank_memory.md
python benchmarks/bank_memory.py --rows 100000 --out x.md
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import shlex
import socket
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional as F

from contralex.kinds.negatives.specs import MemoryBankSpec
from contralex.lookup.clock import Clock
from contralex.lookup.values import Match, Rows, Step
from contralex.plugins.building import BuildContext

HERE = Path(__file__).parent
PROCESSES = (1, 2, 4)
CASES = (("replicated", "float32"), ("sharded", "float32"), ("replicated", "float16"), ("sharded", "float16"))
DIM, BATCH, DRAWS = 128, 256, 512
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_281_167)
    parser.add_argument("--out", type=Path, default=HERE / "bank_memory.md")
    arguments = parser.parse_args()
    lines = _head(arguments.rows)
    for processes in PROCESSES:
        for placement, dtype in CASES:
            found = measured(processes, arguments.rows, placement, dtype)
            lines.append(
                f"| {processes} | {placement} | {dtype} | {' | '.join(f'{value / MIB:.1f}' for value in found)} |"
            )
            print(lines[-1], flush=True)
            arguments.out.write_text("\n".join([*lines, ""]), "utf-8")


def _head(rows: int) -> list[str]:
    command = shlex.join(["python", *sys.argv])
    return [
        "# The memory of a bank, on each process",
        "",
        f"`{command}`; {rows:,} rows of {DIM} numbers, gloo, {os.cpu_count()} cores, no GPU,",
        f"torch {torch.__version__}.",
        "",
        "*Buffers*: the bytes of the bank's buffers. *Resident*: by how much `/proc/self/statm` had grown",
        f"after the bank was built, and after one step (a look-up of {BATCH} queries with {DRAWS} draws each, and the",
        "update), when what the step had made for itself was freed. Each figure is that of the process with the most.",
        "",
        "| processes | placement | dtype | buffers, MiB | resident, built, MiB | resident, after a step, MiB |",
        "|---|---|---|---|---|---|",
    ]


def measured(processes: int, rows: int, placement: str, dtype: str) -> list[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    figures = mp.get_context("spawn").SimpleQueue()
    mp.spawn(worker, (processes, port, rows, placement, dtype, figures), nprocs=processes)
    return [max(of_all) for of_all in zip(*(figures.get() for _ in range(processes)), strict=True)]


def worker(rank: int, processes: int, port: int, rows: int, placement: Any, dtype: Any, figures: Any) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=processes)
    one_step(built(4 * BATCH, placement, dtype), 4 * BATCH)  # libraries load, and gloo connects, before it is measured
    before = resident()
    bank = built(rows, placement, dtype)
    after_build = resident() - before
    one_step(bank, rows)
    after_step = resident() - before
    figures.put((sum(buffer.nbytes for buffer in bank.buffers()), after_build, after_step))
    dist.barrier()
    dist.destroy_process_group()


def built(rows: int, placement: Any, dtype: Any) -> Any:
    unused: Any = None
    context = BuildContext(DIM, rows, BATCH, (0,), encoder=unused, fresh_encoder=unused)
    return MemoryBankSpec(draws=DRAWS, placement=placement, dtype=dtype).build(context)


def one_step(bank: Any, rows: int) -> None:
    step = Step(Clock(0, 10, 10), seed=0, batch=BATCH)
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(BATCH, DIM, generator=generator), dim=1)
    keys = Rows.from_view(vectors, torch.randint(rows, (BATCH,), generator=generator), 0)
    share = BATCH // dist.get_world_size()
    queries = keys[torch.arange(share) + share * dist.get_rank()]
    bank(queries, keys, Match(0, 0), step).scores(queries.vectors)
    bank.update(keys, step)


def resident() -> int:
    """Bytes, once what was freed has gone back to the system."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
